"""Splash attention, JAX's Pallas kernel for TPUs, under `shard_map`."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Array, Float, Int32

from onereward_jax.parallel import ATTENTION, RULES

BLOCK = 512
"""Maximum number of queries and keys per block; sequences are padded to a multiple."""

LANES = 128


def splash_attention(
    q: Float[Array, "b n h d"],
    k: Float[Array, "b n g d"],
    v: Float[Array, "b n g d"],
    *,
    scale: float | None = None,
    is_causal: bool = False,
    interpret: bool = False,
) -> Float[Array, "b n h d"]:
    """Equal to `attention` without mask; never materializes the logits, forward or backward.

    Samples and heads are sharded by the logical axis rules; a mesh axis that does not divide them
    is dropped.

    Args:
      q, k, v, scale, is_causal: as in `attention`; self-attention only.
      interpret: run the kernel in Pallas' interpreter, for tests on CPU.
    """
    length, width = q.shape[1], q.shape[3]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    q = (q.astype(jnp.float32) * scale).astype(q.dtype)
    block = min(BLOCK, LANES * math.ceil(length / LANES))
    padded = block * math.ceil(length / block)
    # With a causal mask, real queries never attend to padding at the end.
    hides_padding = padded > length and not is_causal
    batch, heads = _spread(q.shape[0], k.shape[2])
    spec = PartitionSpec(batch, heads, None, None)

    def local(
        q: Float[Array, "b h n d"], k: Float[Array, "b g n d"], v: Float[Array, "b g n d"]
    ) -> Float[Array, "b h n d"]:
        kernel = _kernel(q.shape[1], padded, block, is_causal, interpret)
        segments = _segments(length, padded) if hides_padding else None
        return jax.vmap(lambda q, k, v: kernel(q, k, v, segment_ids=segments))(q, k, v)

    def arrange(x: Float[Array, "b n h d"]) -> Float[Array, "b h padded d"]:
        return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, padded - length), (0, 0)))

    if not jax.sharding.get_abstract_mesh().empty:
        local = jax.shard_map(local, in_specs=spec, out_specs=spec, check_vma=False)
    return local(arrange(q), arrange(k), arrange(v))[:, :, :length].swapaxes(1, 2)


def _kernel(
    heads: int, padded: int, block: int, is_causal: bool, interpret: bool
) -> Callable[..., Array]:
    shape = (padded, padded)
    one = splash.CausalMask(shape) if is_causal else splash.FullMask(shape)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    return splash.make_splash_mha(
        splash.MultiHeadMask([one] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
        residual_checkpoint_name=ATTENTION,
    )


def _segments(length: int, padded: int) -> splash.SegmentIds:
    """Puts padding into a segment of its own, so that real queries do not attend to it."""
    ids: Int32[Array, "n"] = (jnp.arange(padded) >= length).astype(jnp.int32)
    return splash.SegmentIds(q=ids, kv=ids)


def _spread(batch: int, kv_heads: int) -> tuple[tuple[str, ...] | None, str | None]:
    """Mesh axes of the batch and the head dimension."""
    mesh, table = jax.sharding.get_abstract_mesh(), dict(RULES)
    return _dividing(batch, table["batch"], mesh), _dividing(kv_heads, table["act_heads"], mesh)


def _dividing(
    size: int, axes: tuple[str, ...] | str, mesh: AbstractMesh
) -> tuple[str, ...] | str | None:
    """`axes` if the mesh has them and their size divides `size`, else None."""
    names = (axes,) if isinstance(axes, str) else axes
    if not set(names) <= set(mesh.axis_names):
        return None
    return None if size % math.prod(mesh.shape[name] for name in names) else axes
