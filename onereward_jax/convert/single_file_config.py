"""The config.json that a single file does not have: the sizes are read from its tensors' shapes."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from onereward_jax.convert.layouts import FLUX
from onereward_jax.convert.single_file import SingleFile
from onereward_jax.models.flux import FluxConfig

AXES = "axes_dims_rope"
"""The only size that no shape tells; our own files state it in their metadata."""

FILL_CHANNELS = 384
IN_CHANNELS = {
    64: "a text-to-image FLUX.1 (dev, schnell, Krea) or Kontext",
    128: "FLUX.1-Canny or FLUX.1-Depth",
}
"""in_channels of published transformers of FLUX's width that are not fill models."""

_DECIDED = {"guidance_embeds"}
"""Fields in which a file may differ from the transformer that it replaces."""


def single_file_config(file: SingleFile, replaced: Mapping[str, Any] | None) -> dict[str, Any]:
    """The config.json of a single file's transformer.

    Args:
      file: the file.
      replaced: config.json of the transformer that it is used instead of, to compare the sizes
        with; None: nothing to compare with.

    Raises:
      ValueError: a tensor that tells a size is missing, or the sizes are not those of `replaced`.
    """
    found = _sizes(file)
    if replaced is None:
        return found
    expected = dataclasses.asdict(FluxConfig.from_dict(replaced))
    fields = found.keys() - _DECIDED - {"_class_name"}
    channels = expected["in_channels"]
    if found["in_channels"] != channels and channels == FILL_CHANNELS:
        kind = IN_CHANNELS.get(found["in_channels"], "not a fill model")
        raise ValueError(
            f"{file.path} has {found['in_channels']} input channels: it is {kind}; the editor "
            f"needs a fill transformer, with {channels}"
        )
    if expected["out_channels"] is None:
        expected["out_channels"] = channels
    different = [
        f"{name} {_plain(found[name])} (the editor's {_plain(expected[name])})"
        for name in sorted(fields)
        if _plain(found[name]) != _plain(expected[name])
    ]
    if different:
        raise ValueError(
            f"{file.path} is not of the editor's sizes: {', '.join(different)}; if that is meant, "
            "make it a folder with `onereward convert`, which writes a config.json of its own"
        )
    return {**replaced, **found}


def _sizes(file: SingleFile) -> dict[str, Any]:
    """The sizes that the shapes tell."""
    width, in_channels = _shape(file, "x_embedder.weight")
    head = _shape(file, "transformer_blocks.0.attn.norm_q.weight", 1)[0]
    heads, rest = divmod(width, head)
    if rest or not heads:
        raise ValueError(f"{file.path}: width {width} is not a multiple of the head's {head}")
    axes = _axes(file, head)
    return {
        "_class_name": FLUX.architecture,
        "patch_size": 1,
        "in_channels": in_channels,
        "out_channels": _shape(file, "proj_out.weight")[0],
        "num_layers": _count(file, "transformer_blocks"),
        "num_single_layers": _count(file, "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": heads,
        "joint_attention_dim": _shape(file, "context_embedder.weight")[1],
        "pooled_projection_dim": _shape(file, "time_text_embed.text_embedder.linear_1.weight")[1],
        "guidance_embeds": any(".guidance_embedder." in name for name in file.tensors),
        **({AXES: axes} if axes else {}),
    }


def _axes(file: SingleFile, head: int) -> list[int] | None:
    """The head's channels per axis: as the file states, FLUX's for its heads, or None."""
    stated = file.metadata.get(AXES)
    if stated is None:
        usual = FluxConfig.axes_dims_rope
        return list(usual) if sum(usual) == head else None
    try:
        axes = json.loads(stated)
    except (ValueError, RecursionError):
        axes = None
    if not isinstance(axes, list) or not all(type(one) is int and one > 0 for one in axes):
        raise ValueError(f"{file.path}: {AXES} in its metadata is {stated!r}, a list expected")
    return axes


def _shape(file: SingleFile, name: str, rank: int = 2) -> tuple[int, ...]:
    if name not in file.tensors:
        raise ValueError(f"{file.path} has no tensor {name} (or its name in the original release)")
    shape = file.tensors[name].shape
    if len(shape) != rank or 0 in shape:
        raise ValueError(f"{file.path}: shape {shape} of {name}; {rank} positive sizes expected")
    return shape


def _count(file: SingleFile, stack: str) -> int:
    """Number of blocks; none may be missing between them."""
    found = (re.match(rf"{stack}\.(\d{{1,6}})\.", name) for name in file.tensors)
    numbers = {int(one[1]) for one in found if one}
    missing = next(number for number in range(len(numbers) + 1) if number not in numbers)
    if missing < len(numbers):
        raise ValueError(f"{file.path} has no tensors of {stack}.{missing}")
    return len(numbers)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
