"""A FLUX transformer in a single file, as ComfyUI's users have it, read as if from a folder.

Names are those of the original release (`bfl_names`) or of diffusers, with or without a prefix
(`model.diffusion_model.`). Weights are plain (float64 to bfloat16, or cast to 8 bits), or 8 bits
with scales in ComfyUI's two conventions:

- `<layer>.scale_weight` and a tensor `scaled_fp8`;
- `<layer>.weight_scale` and `<layer>.comfy_quant` or `_quantization_metadata`, which name a format.

A weight is its 8-bit values times the scale. Scales of activations (`scale_input`, `input_scale`)
only serve 8-bit multiplication and are ignored. GGUF files have the original names too
(`gguf_file`). Sources: ComfyUI, `comfy/ops.py`,
`comfy/model_detection.py` and `comfy/utils.py`; diffusers, `loaders/single_file_utils.py`.

Nothing is converted: each tensor of a diffusers folder is a view of the file (`tensor_views`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onereward_jax.common.listing import listed
from onereward_jax.convert.bfl_names import SWAPPED, diffusers_modules
from onereward_jax.convert.foreign_files import (
    check_weights_file,
    refused_model,
    refused_quantization,
)
from onereward_jax.convert.gguf_file import is_gguf, read_gguf
from onereward_jax.convert.safetensors_reader import DTYPES, TensorOnDisk, read_header
from onereward_jax.convert.tensor_views import ScaledTensor, halves_swapped

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.")
COMPANIONS = r"^(vae|first_stage_model|text_encoders|cond_stage_model|conditioner|text_encoder)\."
"""Other parts of a checkpoint for ComfyUI's node "Load Checkpoint"."""

FP8 = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
"""dtype -> format in `comfy_quant`."""

_SCALE = re.compile(r"(?P<layer>.+)\.(scale_weight|weight_scale)")
_IGNORED = re.compile(r"(.+\.)?(scale_input|input_scale|scaled_fp8|comfy_quant)")
_PARAMETER = re.compile(r"(?P<module>.+)\.(?P<name>weight|bias|scale)")


@dataclass(frozen=True)
class SingleFile:
    """The transformer of a single file.

    Attributes:
      path: the file.
      tensors: diffusers' name -> tensor.
      metadata: the texts of the file's header.
      others: the file also has other models, which are not read.
    """

    path: Path
    tensors: Mapping[str, TensorOnDisk]
    metadata: Mapping[str, str]
    others: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        if not self.others:
            return ()
        return ("only its transformer is read, not its autoencoder and text encoders",)


def read_single_file(path: str | Path) -> SingleFile:
    """The transformer of a safetensors or GGUF file; reads the header and the scales only.

    Raises:
      FileNotFoundError: there is no such file.
      ModuleNotFoundError: a GGUF file needs the extra `gguf`.
      ValueError: it is broken, holds another model or another kind of quantization, or tensors of
        one layer do not belong together (at most 20 are listed).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    check_weights_file(path)
    stored, metadata = (read_gguf(path), {}) if is_gguf(path) else read_header(path)
    prefix = next((one for one in PREFIXES if any(key.startswith(one) for key in stored)), "")
    own = {key.removeprefix(prefix): stored[key] for key in stored if key.startswith(prefix)}
    others = [key for key in stored if not key.startswith(prefix)]
    stray = [key for key in others if not re.match(COMPANIONS, key)]
    _check_kind(path, own)
    if stray:
        raise ValueError(
            f"{path}: tensors beside its transformer ({prefix}...) are unknown:" + listed(stray)
        )
    weights, problems = _weights(own, _formats(path, own, metadata, prefix))
    tensors: dict[str, TensorOnDisk] = {}
    for key, tensor in weights.items():
        try:
            parts = _as_diffusers(key, tensor)
        except ValueError as error:
            problems.append(str(error))
            continue
        problems += [f"{name}: in the file twice" for name in parts.keys() & tensors.keys()]
        tensors.update(parts)
    if problems:
        raise ValueError(f"{path} cannot be read as a FLUX transformer:" + listed(problems))
    return SingleFile(path, tensors, metadata, bool(others))


def _check_kind(path: Path, own: Mapping[str, TensorOnDisk]) -> None:
    """Raises ValueError for a model or a quantization that is not read."""
    if kind := refused_quantization(own):
        raise ValueError(
            f"{path} is quantized as {kind}, which is not read: take the model in bfloat16, "
            "float16 or fp8 (e4m3fn, e5m2)"
        )
    if kind := refused_model(own):
        raise ValueError(f"{path} holds {kind}; expected the transformer of FLUX.1-Fill")
    unread = {t.kind for key, t in own.items() if key.endswith(".weight")} - DTYPES.keys()
    if unread:
        raise ValueError(
            f"{path} is quantized: its weights have dtype {', '.join(sorted(unread))}, which is "
            "not read: take the model in bfloat16, float16 or fp8 (e4m3fn, e5m2)"
        )
    names = own.keys()
    if not any(re.match(r"(double_blocks|transformer_blocks)\.\d+\.", name) for name in names):
        raise ValueError(
            f"{path} holds no FLUX transformer: of its {len(names)} tensors, none is in "
            "double_blocks or transformer_blocks"
        )


def _formats(
    path: Path, own: Mapping[str, TensorOnDisk], metadata: Mapping[str, str], prefix: str
) -> dict[str, str]:
    """Layer -> format of its 8-bit weight, where the file states one."""
    found: dict[str, Any] = {}
    if text := metadata.get("_quantization_metadata"):
        layers = _json(f"{path}: _quantization_metadata", text).get("layers")
        if not isinstance(layers, dict):
            raise ValueError(f"{path}: _quantization_metadata has no layers")
        found = {layer.removeprefix(prefix): setting for layer, setting in layers.items()}
    for key, tensor in own.items():
        if key.endswith(".comfy_quant"):
            if tensor.kind != "U8":
                raise ValueError(f"{path}: {key} is {tensor.kind}, U8 (a text) expected")
            text = tensor[()].tobytes().decode(errors="replace")
            found[key.removesuffix(".comfy_quant")] = _json(f"{path}: {key}", text)
    formats = {}
    for layer, setting in found.items():
        stated = setting.get("format") if isinstance(setting, dict) else setting
        if stated not in FP8.values():
            raise ValueError(
                f"{path}: {layer} is quantized as {stated!r}, which is not read: take the model "
                f"in bfloat16, float16 or fp8 ({', '.join(FP8.values())})"
            )
        formats[layer] = stated
    return formats


def _json(where: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text.rstrip("\0"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a JSON object")
    return value


def _weights(
    own: Mapping[str, TensorOnDisk], formats: Mapping[str, str]
) -> tuple[dict[str, TensorOnDisk], list[str]]:
    """The file's weights, scaled where they have a scale; and errors."""
    scales, problems, weights = {}, [], {}
    for key, tensor in own.items():
        if found := _SCALE.fullmatch(key):
            if found["layer"] in scales:
                problems.append(f"{found['layer']}: has both scale_weight and weight_scale")
            scales[found["layer"]] = tensor
    for key, tensor in own.items():
        if _SCALE.fullmatch(key) or _IGNORED.fullmatch(key):
            continue
        if tensor.kind not in DTYPES:
            problems.append(f"{key}: dtype {tensor.kind} is none of {', '.join(DTYPES)}")
            continue
        layer = key.removesuffix(".weight") if key.endswith(".weight") else None
        scale = scales.pop(layer, None)
        stated = formats.get(layer)
        if stated is not None and FP8.get(tensor.kind) != stated:
            problems.append(f"{key}: dtype {tensor.kind}, but the file states {stated}")
        elif stated is not None and scale is None:
            problems.append(f"{key}: has no scale ({layer}.weight_scale)")
        elif scale is None:
            weights[key] = tensor
        elif problem := _wrong_scale(key, tensor, scale):
            problems.append(problem)
        else:
            weights[key] = ScaledTensor(tensor, scale)
    problems += [f"{layer}: has a scale, but no weight" for layer in scales]
    return weights, problems


def _wrong_scale(key: str, tensor: TensorOnDisk, scale: TensorOnDisk) -> str | None:
    """Why a scale does not belong to a weight; None: it does."""
    if tensor.kind not in FP8:
        return f"{key}: has a scale, but its dtype is {tensor.kind}, not {' or '.join(FP8)}"
    if scale.kind not in DTYPES:
        return f"{key}: its scale has dtype {scale.kind}"
    if math.prod(scale.shape) != 1:
        rows = tensor.shape[:1]
        if not rows or scale.shape not in (rows, (*rows, 1)):
            return f"{key}: shape {scale.shape} of its scale; one number, or one per row expected"
    values = scale[()].astype(np.float32)
    if not np.all(np.isfinite(values) & (values >= 0)):
        return f"{key}: its scale is {values.ravel()[0]}"
    return None


def _as_diffusers(key: str, tensor: TensorOnDisk) -> dict[str, TensorOnDisk]:
    """The tensors of diffusers in one of the file, by name; a name of diffusers stays itself.

    Raises:
      ValueError: a fused tensor does not split.
    """
    found = _PARAMETER.fullmatch(key)
    modules = diffusers_modules(found["module"]) if found else ()
    if not modules:
        return {key: tensor}
    name = "weight" if found["name"] == "scale" else found["name"]
    names = [f"{module}.{name}" for module in modules]
    shares = [4 if module.endswith("proj_mlp") else 1 for module in modules]
    rows = tensor.shape[0] if tensor.shape else 0
    unit, rest = divmod(rows, sum(shares))
    if rest or not rows:
        parts = f"{len(modules)} parts of {' : '.join(map(str, shares))}"
        raise ValueError(f"{key}: {rows} rows do not split into {parts}")
    if len(names) == 1:
        if found["module"] != SWAPPED:
            return {names[0]: tensor}
        if rows % 2:
            raise ValueError(f"{key}: {rows} rows are not a shift and a scale")
        return {names[0]: halves_swapped(tensor)}
    result, first = {}, 0
    for one, share in zip(names, shares):
        result[one] = tensor.rows(first, first + share * unit)
        first += share * unit
    return result
