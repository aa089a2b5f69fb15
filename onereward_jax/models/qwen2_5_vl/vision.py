"""Vision tower of Qwen2.5-VL: a ViT with windowed attention in most layers.

Patches are in *merge order* throughout: raster order over blocks of spatial_merge_size² patches,
and raster order inside a block. The original sorts patches by window once and back at the end.
Attention is permutation-equivariant once rotary positions are applied, so here patches are split
into windows (pad, reshape, transpose, as in Swin) only around the attention of windowed layers.
Frames do not attend to each other and are folded into the batch.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from onereward_jax.models import int8, lora
from onereward_jax.models.attention import attention
from onereward_jax.models.layers import CHANNELS, HEADS, constrain
from onereward_jax.models.qwen2_5_vl.config import Grid, VisionConfig
from onereward_jax.models.qwen2_5_vl.layers import Dense, RMSNorm, SwiGLU
from onereward_jax.models.qwen2_5_vl.positions import rotate, vision_rotary
from onereward_jax.parallel import remat

EPSILON = 1e-6


class Windows:
    """Splits a frame into windows; windows at the lower and right edge may be padded.

    Attributes:
      is_whole: one window covers the frame.
      mask: [windows, patches], False for padding beyond the edge; None if there is none.
    """

    def __init__(self, grid: Grid, config: VisionConfig) -> None:
        merge = config.spatial_merge_size
        self._units = (grid[1] // merge, grid[2] // merge)
        self._per_unit = merge**2
        self._side = tuple(min(config.window_units, units) for units in self._units)
        self._count = tuple(math.ceil(u / s) for u, s in zip(self._units, self._side))
        self.is_whole = self._count == (1, 1)
        inside = [
            (np.arange(count * side) < units).reshape(count, side)
            for count, side, units in zip(self._count, self._side, self._units)
        ]
        real = np.einsum("ah,bw->abhw", *inside).reshape(math.prod(self._count), -1)
        self.mask = None if real.all() else np.repeat(real, self._per_unit, axis=1)

    def split(self, x: Float[Array, "b n h d"]) -> Float[Array, "bw w h d"]:
        """Windows of every frame, folded into the batch; zero padding beyond the edge."""
        (rows, columns), (height, width) = self._units, self._side
        x = x.reshape(x.shape[0], rows, columns, self._per_unit, *x.shape[2:])
        down, right = (c * s - u for c, s, u in zip(self._count, self._side, self._units))
        x = jnp.pad(x, [(0, 0), (0, down), (0, right), (0, 0), (0, 0), (0, 0)])
        shape = (self._count[0], height, self._count[1], width, *x.shape[3:])
        x = x.reshape(x.shape[0], *shape).transpose(0, 1, 3, 2, 4, 5, 6, 7)
        return x.reshape(-1, height * width * self._per_unit, *x.shape[-2:])

    def join(self, x: Float[Array, "bw w h d"]) -> Float[Array, "b n h d"]:
        """Inverse of `split`."""
        (rows, columns), (height, width) = self._units, self._side
        tail = x.shape[2:]
        x = x.reshape(-1, *self._count, height, width, self._per_unit, *tail)
        x = x.transpose(0, 1, 3, 2, 4, 5, 6, 7)
        x = x.reshape(-1, self._count[0] * height, self._count[1] * width, self._per_unit, *tail)
        return x[:, :rows, :columns].reshape(-1, rows * columns * self._per_unit, *tail)


class VisionAttention(nn.Module):
    """Self-attention inside windows or over the whole frame."""

    config: VisionConfig
    grid: Grid
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], is_full: Bool[Array, ""]) -> Float[Array, "b n c"]:
        """`is_full`: attend over the whole frame."""
        config = self.config
        options = {"use_bias": True, "dtype": self.dtype, "param_dtype": self.param_dtype}
        stddev = config.initializer_range
        qkv = Dense(3 * config.hidden_size, ("embed", "heads"), stddev, name="qkv", **options)(x)
        q, k, v = jnp.unstack(
            qkv.reshape(*x.shape[:2], 3, config.num_heads, config.head_dim), axis=2
        )
        cos, sin = vision_rotary(self.grid, config)
        q, k, v = (constrain(part, HEADS) for part in (rotate(q, cos, sin), rotate(k, cos, sin), v))

        windows = Windows(self.grid, config)

        def windowed(q: Array, k: Array, v: Array) -> Array:
            mask = windows.mask
            if mask is not None:
                mask = jnp.tile(mask, (q.shape[0], 1))[:, None, None, :]
            split = (windows.split(part) for part in (q, k, v))
            return windows.join(attention(*split, mask=mask))

        if windows.is_whole:
            out = attention(q, k, v)
        else:
            # Recompute in the backward pass: lax.cond would save the residuals of both branches.
            full, windowed = jax.checkpoint(attention), jax.checkpoint(windowed)
            out = jax.lax.cond(is_full, full, windowed, q, k, v)
        out = constrain(out, HEADS).reshape(x.shape)
        return Dense(config.hidden_size, ("heads", "embed"), stddev, name="proj", **options)(out)


class VisionBlock(nn.Module):
    """One pre-norm layer; shaped for `nn.scan`."""

    config: VisionConfig
    grid: Grid
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n c"], is_full: Bool[Array, ""]
    ) -> tuple[Float[Array, "b n c"], None]:
        """The residual stream after this layer, and None (no scan output)."""
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        normed = RMSNorm(EPSILON, name="norm1", **types)(x)
        x = x + VisionAttention(config, self.grid, name="attn", **types)(normed, is_full)
        normed = RMSNorm(EPSILON, name="norm2", **types)(x)
        mlp = SwiGLU(config.intermediate_size, config.initializer_range, True, name="mlp", **types)
        return constrain(x + mlp(normed), CHANNELS), None


class PatchMerger(nn.Module):
    """Merges each block of spatial_merge_size² patches into one token of the language model."""

    config: VisionConfig
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b m d"]:
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        options = {"use_bias": True, **types}
        width = config.hidden_size * config.spatial_merge_size**2
        stddev = config.initializer_range
        x = RMSNorm(EPSILON, name="ln_q", **types)(x).reshape(x.shape[0], -1, width)
        x = Dense(width, ("embed", "mlp"), stddev, name="mlp_0", **options)(x)
        x = nn.gelu(x, approximate=False)
        return Dense(config.out_hidden_size, ("mlp", "embed"), stddev, name="mlp_2", **options)(x)


class PatchEmbed(nn.Module):
    """The original's non-overlapping 3-D convolution, as a linear layer on flattened patches."""

    config: VisionConfig
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, patches: Float[Array, "b n p"]) -> Float[Array, "b n c"]:
        projection = Dense(
            self.config.hidden_size,
            ("conv_in", "conv_out"),
            self.config.initializer_range,
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="proj",
        )
        return constrain(projection(patches), CHANNELS)


class VisionTower(nn.Module):
    """Image patches to language tokens."""

    config: VisionConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, patches: Float[Array, "b n p"], grid: Grid) -> Float[Array, "b m d"]:
        """Tokens of a batch of images that share one grid.

        Args:
          patches: normalised pixels in merge order, flattened as (channel, frame, row, column).
          grid: patches along (time, height, width), the same for all images.

        Raises:
          ValueError: the grid does not match the patches or the merge size.
        """
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        merge = config.spatial_merge_size
        if math.prod(grid) != patches.shape[1] or grid[1] % merge or grid[2] % merge:
            raise ValueError(
                f"grid {grid} with merge size {merge} does not fit {patches.shape[1]} patches"
            )
        images = patches.shape[0]
        frames = patches.reshape(images * grid[0], grid[1] * grid[2], -1).astype(self.dtype)
        x = PatchEmbed(config, name="patch_embed", **types)(frames)

        is_full = np.isin(np.arange(config.depth), config.fullatt_block_indexes)
        blocks = nn.scan(
            remat(VisionBlock, self.remat),
            variable_axes={"params": 0, int8.COLLECTION: 0, lora.COLLECTION: 0},
            split_rngs={"params": True},
            length=config.depth,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = blocks(config, grid, name="blocks", **types)(x, jnp.asarray(is_full))
        return PatchMerger(config, name="merger", **types)(x.reshape(images, math.prod(grid), -1))
