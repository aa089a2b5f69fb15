"""Positions and rotary angles: 2-D for the vision tower, (time, row, column) for the text.

Grids are static, so everything except the text positions is computed in numpy at trace time.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from onereward_jax.models.qwen2_5_vl.config import Grid, TextConfig, VisionConfig


def rotate(
    x: Float[Array, "b n h d"],
    cos: Float[np.ndarray | Array, "#b n half"],
    sin: Float[np.ndarray | Array, "#b n half"],
) -> Float[Array, "b n h d"]:
    """Rotates channel pairs (i, i + d/2) of every head, in float32; returns the dtype of x."""
    cos, sin = jnp.asarray(cos)[:, :, None, :], jnp.asarray(sin)[:, :, None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def vision_rotary(
    grid: Grid, config: VisionConfig
) -> tuple[Float[np.ndarray, "1 n half"], Float[np.ndarray, "1 n half"]]:
    """Cosines and sines of one frame's patches, in merge order (see `vision.py`).

    The first half of a head's rotary pairs rotates by the patch's row, the second by its column.
    """
    _, height, width = grid
    merge = config.spatial_merge_size
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    blocks = (height // merge, merge, width // merge, merge)
    place = np.stack(
        [axis.reshape(blocks).transpose(0, 2, 1, 3).reshape(-1) for axis in (rows, columns)], -1
    )
    spatial_dim = config.head_dim // 2
    frequencies = config.rope_theta ** -(np.arange(0, spatial_dim, 2) / spatial_dim)
    angles = (place[:, :, None] * frequencies).reshape(1, len(place), -1)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def image_position_ids(
    length: int, image_starts: Sequence[int], grids: Sequence[Grid], spatial_merge_size: int
) -> Int[np.ndarray, "3 n"]:
    """(time, row, column) position of every token of a sequence with images inside.

    Text tokens count up in all three. An image's tokens are on a lattice that starts at the current
    position, and the next text position is after the lattice's longest spatial side.

    Args:
      length: tokens of the sequence, including image tokens.
      image_starts: index of the first token of every image, ascending.
      grids: patches of every image before merging.

    Raises:
      ValueError: images overlap or do not fit into the sequence.
    """
    parts, done, position = [], 0, 0
    for start, (time, height, width) in zip(image_starts, grids, strict=True):
        lattice = (time, height // spatial_merge_size, width // spatial_merge_size)
        if start < done or start + np.prod(lattice) > length:
            raise ValueError(f"image of {lattice} tokens at {start} does not fit {length} tokens")
        parts.append(np.tile(np.arange(position, position + start - done), (3, 1)))
        position += start - done
        parts.append(np.indices(lattice).reshape(3, -1) + position)
        position += max(lattice[1:])
        done = start + int(np.prod(lattice))
    parts.append(np.tile(np.arange(position, position + length - done), (3, 1)))
    return np.concatenate(parts, axis=1).astype(np.int32)


def text_rotary(
    position_ids: Int[np.ndarray | Array, "3 #b n"], config: TextConfig
) -> tuple[Float[Array, "#b n half"], Float[Array, "#b n half"]]:
    """Cosines and sines of multimodal RoPE: each section of the frequencies uses its own axis."""
    sections = len(config.mrope_section)
    axis = np.repeat(np.arange(sections) % 3, config.mrope_section)
    exponents = np.arange(0, config.head_dim, 2) / config.head_dim
    frequencies = (config.rope_theta**-exponents).astype(np.float32)
    chosen = jnp.moveaxis(jnp.asarray(position_ids)[axis], 0, -1)
    angles = chosen.astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)
