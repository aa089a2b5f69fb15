"""The tensors of a LoRA file -> one low-rank update per linear layer of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from onereward_jax.convert.layouts import FLUX, Layout
from onereward_jax.convert.lora_names import (
    ALPHA,
    BIAS,
    DOWN,
    MAGNITUDE,
    MID,
    UP,
    Modules,
    bare_name,
)
from onereward_jax.convert.lora_settings import LoraSettings
from onereward_jax.convert.tensor_names import torch_name

WIDENED = "x_embedder"
"""FLUX.1's first layer: Fill has the source and the mask as further inputs, after the latents."""


@dataclass(frozen=True)
class Stored:
    """The parts of one module of a file, float32, by `lora_names`' names of parts."""

    module: str
    modules: Modules
    parts: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class LayerUpdate:
    """W -> m (W + s B A) / |W + s B A| of one layer, b -> b + s c; without m only W + s B A.

    Attributes:
      a: A [r, inputs].
      b: B [outputs, r].
      scale: s.
      bias: c [outputs]; None: none.
      magnitude: m, as torch broadcasts it to W: [outputs, 1] or [1, inputs]; None: no DoRA.
    """

    a: Float32[np.ndarray, "r i"]
    b: Float32[np.ndarray, "o r"]
    scale: float
    bias: np.ndarray | None = None
    magnitude: np.ndarray | None = None


def layer_updates(
    stored: Stored,
    shapes: Mapping[str, tuple[int, ...]],
    settings: LoraSettings,
    layout: Layout,
) -> dict[str, LayerUpdate]:
    """The updates of the layers that a module stands for.

    Args:
      stored: the module.
      shapes: published name -> (inputs, outputs).
      settings: of the file.
      layout: the architecture's `Layout`.

    Raises:
      ValueError: one sentence that starts with the module's name.
    """
    name, names, parts = stored.module, stored.modules.names, stored.parts
    missing = [told for told, part in (("lora_A", DOWN), ("lora_B", UP)) if part not in parts]
    if missing:
        raise ValueError(f"{name}: {' and '.join(missing)} is missing in the file")
    outputs = [shapes[each][-1] for each in names]
    down, up = (_matrix(parts[part]) for part in (DOWN, UP))
    rank = _rank(name, down, up, parts.get(MID), shapes[names[0]][0], sum(outputs))
    if MID in parts:
        down = _matrix(parts[MID]) @ down
    down = _widened(name, names[0], down, shapes, layout)
    spellings = [bare_name(name), *names, *(torch_name(each, layout) for each in names)]
    scale = _scale(name, parts.get(ALPHA), rank, settings, spellings)
    bias = _bias(name, parts.get(BIAS), sum(outputs))
    magnitude = _magnitude(name, parts.get(MAGNITUDE), down, sum(outputs))
    if settings.dora and magnitude is None:
        raise ValueError(f"{name}: use_dora is set, but the file has no lora_magnitude_vector")
    if magnitude is not None and len(magnitude) == 1 and len(names) > 1:
        raise ValueError(f"{name}: DoRA by inputs of a fused layer is not read")
    if magnitude is not None and down.shape[1] != _matrix(parts[DOWN]).shape[1]:
        raise ValueError(f"{name}: DoRA of a layer with fewer inputs than the model's is not read")
    if stored.modules.swapped:
        up, bias, magnitude = (_swapped(rows, sum(outputs)) for rows in (up, bias, magnitude))
    ends = np.cumsum(outputs)
    updates = {}
    for each, start, end in zip(names, ends - outputs, ends):
        idle = bias is None and magnitude is None and not up[start:end].any() and up.any()
        if not idle:  # of a fused layer, e.g. only to_q may be adapted
            rows = slice(start, end)
            updates[each] = _piece(down, up, scale, bias, magnitude, rows, len(names) > 1)
    return updates


def _piece(
    down: np.ndarray,
    up: np.ndarray,
    scale: float,
    bias: np.ndarray | None,
    magnitude: np.ndarray | None,
    rows: slice,
    fused: bool,
) -> LayerUpdate:
    """The update of some rows. Ranks that serve other rows only are left out."""
    up, own = up[rows], slice(None)
    if fused:
        used = up.any(axis=0)
        own = used if used.any() else own
    if magnitude is not None and len(magnitude) > 1:
        magnitude = magnitude[rows]
    return LayerUpdate(
        down[own], up[:, own], scale, bias if bias is None else bias[rows], magnitude
    )


def _matrix(tensor: np.ndarray) -> np.ndarray:
    """A 1x1 convolution (LoCon) as the matrix that it is; anything else as it is."""
    while tensor.ndim > 2 and tensor.shape[-1] == 1:
        tensor = tensor[..., 0]
    return tensor


def _rank(
    name: str, down: np.ndarray, up: np.ndarray, mid: np.ndarray | None, inputs: int, outputs: int
) -> int:
    """r, if the shapes fit together and to the layer; the inputs are checked by `_widened`."""
    rank = down.shape[0] if down.ndim else 0
    middle = _matrix(mid).shape if mid is not None else (rank, rank)
    fits = down.ndim == 2 and up.shape == (outputs, middle[0]) and middle == (middle[0], rank)
    if not fits or not rank:
        raise ValueError(
            f"{name}: lora_A {down.shape} and lora_B {up.shape}, expected [r, {inputs}] and "
            f"[{outputs}, r]"
            + (f" with lora_mid [r, r], not {mid.shape}" if mid is not None else "")
        )
    return rank


def _widened(
    name: str,
    published: str,
    down: np.ndarray,
    shapes: Mapping[str, tuple[int, ...]],
    layout: Layout,
) -> np.ndarray:
    """A with the model's number of inputs: zeros for what FLUX.1-dev's first layer has not.

    As in diffusers' `_maybe_expand_lora_state_dict`, but only for the latents: other widths are
    other conditions, e.g. of control adapters.
    """
    inputs, found = shapes[published][0], down.shape[1]
    if found == inputs:
        return down
    latents = shapes.get("proj_out", (0, 0))[-1]
    if layout.architecture == FLUX.architecture and published == WIDENED:
        if found == latents and inputs > latents:
            return np.pad(down, ((0, 0), (0, inputs - latents)))
        meant = "a control adapter" if found < inputs else "a Fill or control model"
        raise ValueError(
            f"{name}: lora_A has {found} inputs, the model {inputs} (of which {latents} are the "
            f"latents): it is of {meant} with other conditions"
        )
    raise ValueError(f"{name}: lora_A {down.shape}, expected [r, {inputs}]")


def _scale(
    name: str,
    alpha: np.ndarray | None,
    rank: int,
    settings: LoraSettings,
    spellings: Sequence[str],
) -> float:
    stated = settings.rank_of(spellings)
    if stated is not None and stated != rank:
        raise ValueError(f"{name}: lora_A has rank {rank}, but the settings state {stated}")
    if alpha is None:
        return settings.scale_of(spellings, rank)
    if alpha.size != 1:
        raise ValueError(f"{name}: alpha has shape {alpha.shape}, expected a number")
    value = float(alpha.reshape(()))
    if value == 0:
        raise ValueError(f"{name}: alpha is 0: the adapter would have no effect")
    return value / rank


def _bias(name: str, bias: np.ndarray | None, outputs: int) -> np.ndarray | None:
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(
            f"{name}: the bias of lora_B has shape {bias.shape}, expected {(outputs,)}"
        )
    return bias


def _magnitude(
    name: str, magnitude: np.ndarray | None, down: np.ndarray, outputs: int
) -> np.ndarray | None:
    """m as [outputs, 1] (peft, LyCORIS with wd_on_output) or [1, inputs] (LyCORIS without)."""
    if magnitude is None:
        return None
    found = magnitude.reshape(magnitude.shape[0] if magnitude.ndim else 1, -1)
    if found.shape in ((outputs, 1), (1, down.shape[1])):
        return found
    raise ValueError(
        f"{name}: DoRA's magnitude has shape {magnitude.shape}, expected [{outputs}], "
        f"[{outputs}, 1] or [1, {down.shape[1]}]"
    )


def _swapped(rows: np.ndarray | None, outputs: int) -> np.ndarray | None:
    """Rows of the outputs with their halves exchanged."""
    if rows is None or len(rows) != outputs:
        return rows
    return np.concatenate(np.split(rows, 2)[::-1])
