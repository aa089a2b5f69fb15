"""Flax paths <-> checkpoint tensor names, and the change of axes that goes with them.

The rule: join the path by ".", `name_<digits>` becomes `name.<digits>`, the leaves `kernel`,
`scale` and `embedding` become `weight`; a scanned stack gets its layer number inserted. Dense
kernels are transposed, convolutions go from OIHW to HWIO, everything else is kept.
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
}
# rank of a kernel -> for every axis of ours, the axis of the file's tensor
KERNEL_AXES = {2: (1, 0), 4: (2, 3, 1, 0)}


@dataclass(frozen=True)
class Entry:
    """One Flax leaf and the checkpoint tensors it consists of.

    Attributes:
      path: "/"-joined Flax path.
      shape: shape of the leaf, with the layer axis when stacked.
      keys: published tensor names, one per layer when stacked, else one.
      stacked: the leaf's axis 0 runs over `keys`.
      tensor_shape: shape that each tensor has in the file.
      axes: for every axis of one (unstacked) leaf, the axis of the file's tensor, which is
        first reshaped to (out, -1) when `flat`.
      flat: the tensor is a convolution kernel that the leaf holds as a Dense kernel.
    """

    path: str
    shape: tuple[int, ...]
    keys: tuple[str, ...]
    stacked: bool
    tensor_shape: tuple[int, ...]
    axes: tuple[int, ...]
    flat: bool


def published_name(key: str, layout: Layout) -> str:
    """The tensor name `key` in the spelling of the published checkpoints."""
    for pattern, replacement in layout.aliases:
        key = re.sub(pattern, replacement, key)
    return key


def unbox(tree: Any) -> Any:
    """The tree without Linen's partitioning boxes (`nn.meta.unbox` would add constraints)."""
    return nn.meta.map_axis_meta(lambda box: box.value, tree)


def flat_leaves(tree: Any) -> dict[str, Any]:
    """{"/"-joined path: leaf} of a tree of dicts, in tree order."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(part.key) for part in path): leaf for path, leaf in leaves}


def entry_of(path: str, shape: tuple[int, ...], layout: Layout, config: Mapping[str, Any]) -> Entry:
    """Where the Flax leaf `path` of the given shape lives in a checkpoint.

    Raises:
      ValueError: a leaf name or a rank that no rule covers.
    """
    *modules, leaf = path.split("/")
    if leaf not in LEAF_NAMES:
        raise ValueError(f"{path}: leaf {leaf!r} is none of {', '.join(LEAF_NAMES)}")
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
    """Entries of all leaves, and a sentence for every leaf that cannot be placed."""
    entries, problems, owner = [], [], {}
    for path, leaf in leaves.items():
        try:
            entry = entry_of(path, tuple(leaf.shape), layout, config)
        except ValueError as error:
            problems.append(str(error))
            continue
        for key in entry.keys:
            if key in owner:
                problems.append(f"{key}: wanted by both {owner[key]} and {path}")
            owner[key] = path
        entries.append(entry)
    return entries, problems
