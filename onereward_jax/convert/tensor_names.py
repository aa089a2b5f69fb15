"""Flax paths <-> checkpoint tensor names, with the change of axes.

Join the path by "."; `name_<digits>` becomes `name.<digits>`; the leaves `kernel`, `scale` and
`embedding` become `weight`; in a scanned stack the layer index is inserted. Dense kernels are
transposed, convolution kernels go from OIHW to HWIO, everything else is unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax

from onereward_jax.convert.layouts import Layout

LEAF_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "weight": "weight",
    "bias": "bias",
    "class_embedding": "class_embedding",
}
# rank of a kernel -> for every axis of the leaf, the axis of the file's tensor
KERNEL_AXES = {2: (1, 0), 4: (2, 3, 1, 0)}


@dataclass(frozen=True)
class Entry:
    """One Flax leaf and its checkpoint tensors.

    Attributes:
      path: "/"-joined Flax path.
      shape: shape of the leaf, including the layer axis if stacked.
      keys: published tensor names, one per layer if stacked, else one.
      stacked: axis 0 of the leaf is the layer axis, over `keys`.
      tensor_shape: shape of each tensor in the file.
      axes: for every axis of one (unstacked) leaf, the axis of the file's tensor, which is
        first reshaped to (out, -1) if `flat`.
      flat: the tensor is a convolution kernel that the leaf stores as a Dense kernel.
    """

    path: str
    shape: tuple[int, ...]
    keys: tuple[str, ...]
    stacked: bool
    tensor_shape: tuple[int, ...]
    axes: tuple[int, ...]
    flat: bool


def published_name(key: str, layout: Layout) -> str:
    """The tensor name `key` as spelled in the published checkpoints."""
    for pattern, replacement in layout.aliases:
        key = re.sub(pattern, replacement, key)
    return key


def torch_name(name: str, layout: Layout) -> str:
    """The published name of a tensor or module as the torch modules of today spell it."""
    for pattern, replacement in layout.torch_names:
        name = re.sub(pattern, replacement, name)
    return name


def unbox(tree: Any) -> Any:
    """The tree without Linen's partitioning boxes (`nn.meta.unbox` would add constraints)."""
    return nn.meta.map_axis_meta(lambda box: box.value, tree)


def flat_leaves(tree: Any) -> dict[str, Any]:
    """{"/"-joined path: leaf} of a tree of dicts, in tree order."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(part.key) for part in path): leaf for path, leaf in leaves}


def entry_of(path: str, shape: tuple[int, ...], layout: Layout, config: Mapping[str, Any]) -> Entry:
    """The checkpoint entry of the Flax leaf `path`.

    Raises:
      ValueError: no rule covers the leaf's name or rank.
    """
    *modules, leaf = path.split("/")
    if leaf not in LEAF_NAMES:
        raise ValueError(f"{path}: leaf {leaf!r} is not one of {', '.join(LEAF_NAMES)}")
    dotted = [
        name if name in layout.verbatim else re.sub(r"_(\d+)$", r".\1", name) for name in modules
    ]
    key = published_name(".".join([*dotted, LEAF_NAMES[leaf]]), layout)

    keys, stacked = (key,), False
    for stack in layout.stacks:
        below = re.match(re.escape(stack) + r"\.(?!\d+\.)(.+)$", key)
        if below:
            if not shape:
                raise ValueError(f"{path}: a scanned layer's leaf needs a leading layer axis")
            keys, stacked = tuple(f"{stack}.{i}.{below[1]}" for i in range(shape[0])), True

    inner = shape[1:] if stacked else shape
    axes = tuple(range(len(inner)))
    if leaf == "kernel":
        if len(inner) not in KERNEL_AXES:
            raise ValueError(f"{path}: no rule for a kernel of rank {len(inner)}")
        axes = KERNEL_AXES[len(inner)]
    tensor_shape = tuple(inner[axes.index(axis)] for axis in range(len(inner)))
    flat = key in layout.flattened
    if flat:
        tensor_shape = (tensor_shape[0], *layout.flattened[key](config))
    return Entry(path, tuple(shape), keys, stacked, tensor_shape, axes, flat)


def plan(
    leaves: Mapping[str, Any], layout: Layout, config: Mapping[str, Any]
) -> tuple[list[Entry], list[str]]:
    """Entries of all leaves, and an error message for every leaf that cannot be mapped."""
    entries, problems, owner = [], [], {}
    for path, leaf in leaves.items():
        try:
            entry = entry_of(path, tuple(leaf.shape), layout, config)
        except ValueError as error:
            problems.append(str(error))
            continue
        for key in entry.keys:
            if key in owner:
                problems.append(f"{key}: used by both {owner[key]} and {path}")
            owner[key] = path
        entries.append(entry)
    return entries, problems
