"""Softmax attention with the best kernel for the platform, the sizes and the mask.

The platform is that of the mesh under which the caller is traced (`parallel.mesh_jit`), not that of
this machine: compiling for a TPU on a CPU host selects the TPU kernel.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from onereward_jax.models.attention.blockwise import LOGIT_BYTES, blockwise_attention
from onereward_jax.models.attention.cudnn import cudnn_attention, suits_cudnn
from onereward_jax.models.attention.splash import splash_attention
from onereward_jax.parallel import ATTENTION

LEAST_SPLASH = 512
"""Minimum number of tokens for the splash kernel: its padding costs more on shorter sequences, such
as a vision tower's windows."""


def attention(
    q: Float[Array, "b lq h d"],
    k: Float[Array, "b lk g d"],
    v: Float[Array, "b lk g d"],
    *,
    mask: Bool[Array, "#b #h #lq lk"] | None = None,
    bias: Float[Array, "#b #h #lq lk"] | None = None,
    scale: float | None = None,
    is_causal: bool = False,
) -> Float[Array, "b lq h d"]:
    """Softmax(q kᵀ · scale + bias) v, with the softmax in float32.

    The output has the checkpoint name `parallel.ATTENTION`, for remat policies.

    Args:
      q, k, v: queries, keys, values; h may be a multiple of g (grouped-query attention).
      mask: True where a query attends to a key.
      bias: added to the logits (T5's relative positions).
      scale: None: 1/√d.
      is_causal: query i attends to keys 0..i.

    Returns:
      [b, lq, h, d] in the dtype of q.
    """
    platform = _platform()
    if platform == "tpu" and mask is None and bias is None and _suits_splash(q, k, is_causal):
        return splash_attention(q, k, v, scale=scale, is_causal=is_causal)
    options = {"mask": mask, "scale": scale, "is_causal": is_causal}
    logit_bytes = q.shape[2] * q.shape[1] * k.shape[1] * jnp.dtype(jnp.float32).itemsize
    if platform in ("gpu", "cuda") and suits_cudnn(q, k):
        mixed = cudnn_attention(q, k, v, bias=bias, **options)
    elif bias is None and logit_bytes > LOGIT_BYTES:
        mixed = blockwise_attention(q, k, v, **options)
    else:
        mixed = jax.nn.dot_product_attention(q, k, v, bias=bias, implementation="xla", **options)
    return checkpoint_name(mixed, ATTENTION)


def _platform() -> str | None:
    """Platform of the current mesh; None outside a mesh."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return None if device is None else device.platform


def _suits_splash(
    q: Float[Array, "b lq h d"], k: Float[Array, "b lk g d"], is_causal: bool
) -> bool:
    """Long sequences; heads of the VAE's width (512) do not fit into VMEM."""
    queries, keys = q.shape[1], k.shape[1]
    fitting = queries == keys or not is_causal
    return fitting and min(queries, keys) >= LEAST_SPLASH and q.shape[3] <= 256
