"""Splash attention, JAX's Pallas kernel for TPUs, under `shard_map`."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int32

from onereward_jax.models.attention.mesh_axes import batch_and_head_axes, in_shard_map
from onereward_jax.parallel import ATTENTION

BLOCK = 512
"""Maximum number of queries and keys per block; sequences are padded to a multiple."""

LANES = 128


def splash_attention(
    q: Float[Array, "b lq h d"],
    k: Float[Array, "b lk g d"],
    v: Float[Array, "b lk g d"],
    *,
    scale: float | None = None,
    is_causal: bool = False,
    interpret: bool = False,
) -> Float[Array, "b lq h d"]:
    """Equal to `attention` without mask; never materializes the logits, forward or backward.

    Samples and heads are sharded by the logical axis rules; a mesh axis that does not divide them
    is dropped. Inside another `shard_map`, all are those of one device.

    Args:
      q, k, v, scale, is_causal: as in `attention`; with a causal mask, lq = lk.
      interpret: run the kernel in Pallas' interpreter, for tests on CPU.
    """
    queries, keys, width = q.shape[1], k.shape[1], q.shape[3]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    q = (q.astype(jnp.float32) * scale).astype(q.dtype)
    block_q, block_kv = _block(queries), _block(keys)
    shape = _padded(queries, block_q), _padded(keys, block_kv)
    # With a causal mask, real queries never attend to padding at the end.
    hides_padding = shape[1] > keys and not is_causal

    def local(
        q: Float[Array, "b h lq d"], k: Float[Array, "b g lk d"], v: Float[Array, "b g lk d"]
    ) -> Float[Array, "b h lq d"]:
        kernel = _kernel(q.shape[1], shape, (block_q, block_kv), is_causal, interpret)
        segments = _segments(queries, keys, shape) if hides_padding else None
        return jax.vmap(lambda q, k, v: kernel(q, k, v, segment_ids=segments))(q, k, v)

    def arrange(x: Float[Array, "b n h d"], padded: int) -> Float[Array, "b h padded d"]:
        return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, padded - x.shape[1]), (0, 0)))

    if not (jax.sharding.get_abstract_mesh().empty or in_shard_map()):
        spec = PartitionSpec(*batch_and_head_axes(q.shape[0], k.shape[2]), None, None)
        local = jax.shard_map(local, in_specs=spec, out_specs=spec, check_vma=False)
    mixed = local(arrange(q, shape[0]), arrange(k, shape[1]), arrange(v, shape[1]))
    return mixed[:, :, :queries].swapaxes(1, 2)


def _block(length: int) -> int:
    return min(BLOCK, LANES * math.ceil(length / LANES))


def _padded(length: int, block: int) -> int:
    return block * math.ceil(length / block)


def _kernel(
    heads: int, shape: tuple[int, int], blocks: tuple[int, int], is_causal: bool, interpret: bool
) -> Callable[..., Array]:
    """The kernel of `shape` (queries, keys), both multiples of `blocks`."""
    one = splash.CausalMask(shape) if is_causal else splash.FullMask(shape)
    block_q, block_kv = blocks
    sizes = splash.BlockSizes(
        block_q=block_q,
        block_kv=block_kv,
        block_kv_compute=block_kv,
        block_q_dkv=block_q,
        block_kv_dkv=block_kv,
        block_kv_dkv_compute=block_kv,
        block_q_dq=block_q,
        block_kv_dq=block_kv,
    )
    return splash.make_splash_mha(
        splash.MultiHeadMask([one] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
        residual_checkpoint_name=ATTENTION,
    )


def _segments(queries: int, keys: int, shape: tuple[int, int]) -> splash.SegmentIds:
    """Puts padding into a segment of its own, so that real queries do not attend to it."""

    def ids(length: int, padded: int) -> Int32[Array, "n"]:
        return (jnp.arange(padded) >= length).astype(jnp.int32)

    return splash.SegmentIds(q=ids(queries, shape[0]), kv=ids(keys, shape[1]))
