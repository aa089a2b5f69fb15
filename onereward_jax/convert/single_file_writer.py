"""Writes the transformer as a single file for ComfyUI, in the names of the original release.

dtypes: "bfloat16", "float16", "float32", or "float8_e4m3fn": the linear layers of the blocks in 8
bits, each with one float32 scale `<layer>.weight_scale` = largest magnitude / 448 and the note
`<layer>.comfy_quant`, as ComfyUI itself writes them; the other tensors in bfloat16. Half a step of
e4m3fn is 1/16 of a value: the weights of a layer are off by about 2.5% (root mean square).
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from onereward_jax.common.listing import listed
from onereward_jax.convert.bfl_names import SWAPPED, bfl_module, diffusers_modules
from onereward_jax.convert.layouts import FLUX
from onereward_jax.convert.safetensors_reader import TensorOnDisk
from onereward_jax.convert.safetensors_writer import Shape, write_tensors
from onereward_jax.convert.save import as_published
from onereward_jax.convert.single_file_config import AXES
from onereward_jax.convert.tensor_names import Entry, flat_leaves, plan, unbox
from onereward_jax.convert.tensor_views import StackedRows, halves_swapped
from onereward_jax.parallel import is_writer
from onereward_jax.parallel.gather_layers import layers_on_writer

FP8 = "float8_e4m3fn"
SINGLE_FILE_DTYPES = ("bfloat16", "float16", "float32", FP8)
BESIDE_FP8 = "bfloat16"
LARGEST = float(jnp.finfo(jnp.float8_e4m3fn).max)
ROWS = 1024
"""Rows that are scaled to 8 bits at a time."""

_NOTE = json.dumps({"format": FP8, "full_precision_matrix_mult": True})
# The multiplication is in 16 bits: the activations have not been calibrated for 8.
NOTE = np.frombuffer((_NOTE + " " * (-len(_NOTE) % 8)).encode(), np.uint8)


@dataclass(frozen=True)
class Fused:
    """A tensor of a single file.

    Attributes:
      key: its name.
      parts: names of the tensors of a diffusers folder whose rows it has, in this order.
      swapped: its halves are those of its only part the other way round.
    """

    key: str
    parts: tuple[str, ...]
    swapped: bool

    @property
    def in_8_bits(self) -> bool:
        """Whether it is a weight that `FP8` covers: a linear layer of a block."""
        layer, _, name = self.key.rpartition(".")
        return name == "weight" and "_blocks." in layer

    @property
    def place(self) -> tuple[str, str, int]:
        """Where it is in the file: beside the same layer of other blocks, which is one leaf."""
        found = re.fullmatch(r"(\w+_blocks)\.(\d+)\.(.+)", self.key)
        return (found[1], found[3], int(found[2])) if found else ("", self.key, 0)


def fused_tensors(names: Collection[str]) -> list[Fused]:
    """The tensors of a single file, in order, that hold the tensors `names` of a diffusers folder.

    Raises:
      ValueError: a name is not FLUX's, or a part of a fused tensor is missing.
    """
    places: dict[str, dict[int, str]] = {}
    problems = []
    for name in names:
        module, _, parameter = name.rpartition(".")
        found = bfl_module(module)
        if found is None:
            problems.append(f"{name}: not a tensor of FLUX")
            continue
        if found[0].endswith("_norm"):
            parameter = "scale"
        places.setdefault(f"{found[0]}.{parameter}", {})[found[1]] = name
    for key, parts in places.items():
        needed = diffusers_modules(key.rpartition(".")[0])
        problems += [
            f"{needed[place]}: missing for {key}"
            for place in range(len(needed))
            if place not in parts
        ]
    if problems:
        raise ValueError("cannot be written as a single file of FLUX:" + listed(problems))
    fused = (
        Fused(key, tuple(parts[place] for place in sorted(parts)), key.startswith(SWAPPED))
        for key, parts in places.items()
    )
    return sorted(fused, key=lambda one: (one.in_8_bits, one.place))


def write_single_file(
    path: str | Path, params: Any, *, config: Mapping[str, Any], dtype: str
) -> None:
    """Writes the Flax parameters of a transformer as a single file; not atomic.

    All processes must call it; process 0 writes. Extra memory: on each device its shard of one
    layer of a leaf; on the host of process 0, two tensors of the file.

    Args:
      path: the file.
      params: the Flax parameter tree, sharded or not.
      config: content of the transformer's config.json.
      dtype: one of `SINGLE_FILE_DTYPES`.

    Raises:
      ValueError: a leaf is not FLUX's, or a weight is too large for float16.
    """
    leaves = flat_leaves(unbox(params))
    entries, problems = plan(leaves, FLUX, config)
    if problems:
        raise ValueError(f"cannot write {path}:" + listed(problems))
    owner = {key: entry for entry in entries for key in entry.keys}
    stacks: dict[tuple[str, ...], list[Fused]] = {}
    for one in fused_tensors(owner):
        stacks.setdefault(tuple(owner[name].path for name in one.parts), []).append(one)
    groups = [(tuple(owner[name] for name in ones[0].parts), ones) for ones in stacks.values()]
    gathered = jnp.float32 if dtype == FP8 else jnp.dtype(dtype)
    tensors = itertools.chain.from_iterable(
        _layers(entries, ones[0], leaves, gathered) for entries, ones in groups
    )
    if not is_writer():
        for _ in tensors:  # takes part in the all-gathers
            pass
        return
    shapes = {one: _shape(entries) for entries, ones in groups for one in ones}
    _write(Path(path), shapes, tensors, dtype, config)


def rewrite_single_file(
    path: str | Path, tensors: Mapping[str, TensorOnDisk], *, config: Mapping[str, Any], dtype: str
) -> None:
    """`write_single_file` from tensors on disk, with one of them in memory at a time.

    Args:
      tensors: name in a diffusers folder -> tensor.
      path, config, dtype: as `write_single_file`.
    """
    fused = fused_tensors(tensors)
    views = [StackedRows(tuple(tensors[name] for name in one.parts)) for one in fused]
    views = [halves_swapped(view) if one.swapped else view for one, view in zip(fused, views)]
    shapes = {one: view.shape for one, view in zip(fused, views)}
    _write(Path(path), shapes, (view[()] for view in views), dtype, config)


def _layers(
    entries: Sequence[Entry], one: Fused, leaves: Mapping[str, Any], dtype: Any
) -> Iterator[np.ndarray | None]:
    """The tensors that the leaves of `entries` are fused to, one per layer; None beside writer."""
    parts = [
        map(
            functools.partial(as_published, entry),
            layers_on_writer(leaves[entry.path], entry.stacked, dtype),
        )
        for entry in entries
    ]
    return map(functools.partial(_join, one.swapped), *parts)


def _join(swapped: bool, *parts: np.ndarray | None) -> np.ndarray | None:
    if parts[0] is None:
        return None
    tensor = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return np.roll(tensor, len(tensor) // 2, axis=0) if swapped else tensor


def _shape(entries: Sequence[Entry]) -> tuple[int, ...]:
    rows = sum(entry.tensor_shape[0] for entry in entries)
    return (rows, *entries[0].tensor_shape[1:])


def _write(
    path: Path,
    shapes: Mapping[Fused, tuple[int, ...]],
    tensors: Iterator[np.ndarray],
    dtype: str,
    config: Mapping[str, Any],
) -> None:
    """Writes the tensors in the order of `shapes`, and for `FP8` notes and scales behind them."""
    plain = np.dtype(jnp.dtype(BESIDE_FP8 if dtype == FP8 else dtype))
    scaled = [one for one in shapes if dtype == FP8 and one.in_8_bits]
    written = [
        Shape(one.key, shape, np.dtype(jnp.float8_e4m3fn) if one in scaled else plain)
        for one, shape in shapes.items()
    ]
    layers = [one.key.removesuffix(".weight") for one in scaled]
    notes = [Shape(f"{layer}.comfy_quant", NOTE.shape, NOTE.dtype) for layer in layers]
    scales = [Shape(f"{layer}.weight_scale", (), np.dtype(np.float32)) for layer in layers]
    found: list[np.ndarray] = []

    def encoded() -> Iterator[np.ndarray]:
        for one in shapes:
            tensor = next(tensors)
            if one in scaled:
                tensor, scale = _scaled(one.key, tensor)
                found.append(scale)
            else:
                tensor = cast_weights(one.key, tensor, plain)
            yield tensor
            del tensor  # free it before the next one is made
        yield from itertools.repeat(NOTE, len(notes))
        yield from found

    axes = config.get("axes_dims_rope")
    metadata = {AXES: json.dumps(list(axes))} if axes else {}
    write_tensors(path, [*written, *notes, *scales], encoded(), metadata)


def cast_weights(key: str, tensor: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The tensor in another dtype; raises ValueError where that makes a weight infinite or NaN."""
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(tensor.astype(dtype, copy=False))
    if not np.isfinite(np.sum(cast, dtype=np.float64)):
        raise ValueError(f"{key}: a weight is NaN, or beyond the range of {dtype}")
    return cast


def _scaled(key: str, tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values in 8 bits, scale): tensor = values * scale, but for the rounding."""
    blocks = [tensor[row : row + ROWS] for row in range(0, len(tensor), ROWS)]
    largest = max(float(np.max(np.abs(block.astype(np.float32)))) for block in blocks)
    if not np.isfinite(largest):
        raise ValueError(f"{key}: a weight is NaN or infinite")
    scale = np.float32(largest / LARGEST) if largest else np.float32(1.0)
    values = np.empty(tensor.shape, jnp.float8_e4m3fn)
    for number, block in enumerate(blocks):
        part = np.clip(block.astype(np.float32) / scale, -LARGEST, LARGEST)
        values[number * ROWS : number * ROWS + len(block)] = part.astype(values.dtype)
    return values, np.asarray(scale)
