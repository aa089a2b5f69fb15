"""Reads LoRA and DoRA files of all common trainers (`lora_writer` writes them), strictly.

    pytorch_lora_weights.safetensors                     diffusers' pipelines and models
    adapter_model.safetensors with adapter_config.json   peft's own folder
    anything.safetensors                                 kohya, ComfyUI, OneTrainer, ai-toolkit, ...

`lora_names` knows the spellings, `lora_settings` the scale alpha / r, `lora_kinds` what is refused.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float32, PyTree

from onereward_jax.common.listing import first_of, listed
from onereward_jax.convert.layouts import FLUX, Layout
from onereward_jax.convert.lora_kinds import other_kind, other_model, stated_base
from onereward_jax.convert.lora_layers import LayerUpdate, Stored, layer_updates
from onereward_jax.convert.lora_names import (
    ALPHA,
    DOWN,
    UP,
    find_modules,
    parse_key,
    spelled_modules,
    text_encoder_of,
)
from onereward_jax.convert.lora_settings import LoraSettings, stated_settings
from onereward_jax.convert.lora_targets import published_modules
from onereward_jax.convert.safetensors_reader import DTYPES, StoredTensor, read_header, read_json
from onereward_jax.convert.tensor_names import unbox
from onereward_jax.models import lora
from onereward_jax.models.lora import FACTOR_A, FACTOR_B, Adapter

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"

WHOLE = {"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8}

Shapes = Mapping[str, tuple[int, ...]]
"""Published name of a linear layer -> (inputs, outputs)."""


def is_adapter(source: str | Path) -> bool:
    """Whether a file or folder has an adapter instead of a full model; reads headers only."""
    try:
        path = adapter_file(Path(source))
    except (FileNotFoundError, ValueError):
        return False
    if path.name in (ADAPTER_FILE, PEFT_FILE):
        return True
    try:
        keys = read_header(path)[0]
    except (OSError, ValueError):
        return False
    return any(parse_key(key) for key in keys) or bool(other_kind(keys))


def adapter_file(source: Path) -> Path:
    """The file of an adapter: itself, or the one of its usual name or the only one in a folder.

    Raises:
      FileNotFoundError: there is none.
      ValueError: a folder has several, none of a usual name.
    """
    if source.is_file():
        return source
    names = [path.name for path in source.iterdir()] if source.is_dir() else []
    return source / chosen_file(names, str(source))


def chosen_file(paths: Sequence[str], where: str) -> str:
    """The adapter among the files of a folder; raises as `adapter_file`, naming the folder."""
    found = sorted(path for path in paths if path.endswith(".safetensors"))
    usual = [
        path for name in (ADAPTER_FILE, PEFT_FILE) for path in found if Path(path).name == name
    ]
    if usual or len(found) == 1:
        return (usual or found)[0]
    if not found:
        raise FileNotFoundError(f"no adapter in {where}: it has no .safetensors file")
    raise ValueError(
        f"{where} has several files, name one of them:"
        + listed([Path(path).name for path in found])
    )


def load_adapter(source: str | Path, abstract_params: PyTree, layout: Layout) -> Adapter:
    """Loads an adapter from a file or a folder, in float32.

    Layers of a stack that the file omits, and layers with a rank below the stack's largest, are
    padded with zeros, which have no effect. Tensors for the text encoders are left out, with one
    warning.

    Args:
      source: a safetensors file, or a folder that has one (see `adapter_file`).
      abstract_params: shapes (and shardings) of the model's parameters; factors are sharded like
        their kernels.
      layout: the architecture's `Layout`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: not safetensors, another kind of adapter or another model's, settings that are
        none, NaN or infinity, or any mismatch of names and shapes, of which the first are listed.
    """
    path = adapter_file(Path(source))
    abstract_params = unbox(abstract_params)
    names = published_modules(abstract_params, layout)
    kernels = lora.kernels_of(abstract_params)
    shapes = {name: kernels[module].shape[-2:] for module, found in names.items() for name in found}
    updates = read_updates(path, shapes, layout)
    return _assemble(updates, abstract_params, names, shapes)


def read_updates(path: Path, shapes: Shapes, layout: Layout) -> dict[str, LayerUpdate]:
    """The update of each layer that the file `path` adapts; raises as `load_adapter`."""
    tensors, metadata = read_header(path)
    keys = {key for key in tensors if not text_encoder_of(key)}
    tensors = _without_idle_differences(path, tensors, keys)
    keys &= tensors.keys()
    kind = other_kind(keys)
    if kind:
        raise ValueError(f"adapter {path} is {kind}; only LoRA and DoRA are read")
    beside = [key for key in tensors if key not in keys]
    if not keys:
        told = f"only tensors for text encoders, such as {beside[0]}" if beside else "no tensors"
        raise ValueError(f"adapter {path} has {told}")
    if not any(map(parse_key, keys)):
        raise ValueError(_no_adapter(path, keys, shapes, layout))
    settings = stated_settings(path, metadata, _peft_config(path, keys))
    _warn_of_missing_alpha(path, metadata, keys)
    found, absent, problems = _modules(
        path, {key: tensors[key] for key in sorted(keys)}, shapes, layout
    )
    model = other_model(absent, metadata) if layout.architecture == FLUX.architecture else ""
    if model:
        raise ValueError(f"adapter {path} was trained for another model, {model}")
    problems += [f"{module}: in the file, but not in the model" for module in absent]
    updates, misfits = _updates(path, found, shapes, settings, layout)
    if misfits and len(found) > 1 and all(_has_other_width(stored, shapes) for stored in found):
        raise ValueError(
            f"adapter {path} was trained for another model{stated_base(metadata)}: none of its "
            f"{len(found)} layers has the model's width, e.g. {misfits[0]}"
        )
    problems += misfits
    if problems:
        raise ValueError(f"adapter {path} does not fit the model:" + listed(problems))
    _warn_of_text_encoders(path, beside)
    return updates


def _value(path: Path, key: str, stored: StoredTensor) -> Float32[np.ndarray, "..."]:
    """A tensor in float32, finite; trainers store an alpha as a whole number, too."""
    parsed = parse_key(key)
    whole = parsed is not None and parsed.part == ALPHA and stored.kind in WHOLE
    if whole:
        value = np.fromfile(
            stored.path, WHOLE[stored.kind], math.prod(stored.shape), "", stored.offset
        )
        value = value.reshape(stored.shape)
    elif stored.kind in DTYPES:
        value = stored[()]
    else:
        raise ValueError(f"{path}: {key}: dtype {stored.kind} is not one of {', '.join(DTYPES)}")
    value = np.asarray(value, np.float32)
    if not np.isfinite(value).all():
        raise ValueError(f"{path}: {key} has NaN or infinity")
    return value


def _peft_config(path: Path, keys: Iterable[str]) -> dict[str, Any] | None:
    """peft's config of an adapter that peft has written."""
    config = path.with_name(PEFT_CONFIG)
    peft = path.name == PEFT_FILE or all(key.startswith("base_model.model.") for key in keys)
    return read_json(config) if peft and config.is_file() else None


def _without_idle_differences(
    path: Path, tensors: Mapping[str, StoredTensor], keys: Iterable[str]
) -> dict[str, StoredTensor]:
    """The tensors but for differences of weights and biases that are zero."""
    idle = {
        key
        for key in keys
        if key.endswith((".diff", ".diff_b", ".b_norm", ".w_norm"))
        and not _value(path, key, tensors[key]).any()
    }
    return {key: tensor for key, tensor in tensors.items() if key not in idle}


def _modules(
    path: Path, tensors: Mapping[str, StoredTensor], shapes: Shapes, layout: Layout
) -> tuple[list[Stored], list[str], list[str]]:
    """The file's modules that the model has, those that it has not, and other errors."""
    table = spelled_modules(shapes, layout)
    parts: dict[str, dict[str, np.ndarray]] = {}
    problems = []
    parsed = {key: parse_key(key) for key in tensors}
    adapters = sorted({one.adapter for one in parsed.values() if one and one.adapter})
    if len(adapters) > 1:
        raise ValueError(
            f"{path} has several adapters, {', '.join(first_of(adapters))}: save them one by one"
        )
    for key, tensor in tensors.items():
        one = parsed[key]
        if one is None:
            problems.append(f"{key}: not a lora_A, lora_B or alpha of a linear layer")
        elif one.part in parts.setdefault(one.module, {}):
            problems.append(f"{key}: {one.module} has it twice")
        else:
            parts[one.module][one.part] = _value(path, key, tensor)
    found, absent = [], []
    for module, own in parts.items():
        modules = find_modules(module, table, layout)
        if modules is None or any(name not in shapes for name in modules.names):
            absent.append(module)
        else:
            found.append(Stored(module, modules, own))
    return found, absent, problems


def _updates(
    path: Path, found: Iterable[Stored], shapes: Shapes, settings: LoraSettings, layout: Layout
) -> tuple[dict[str, LayerUpdate], list[str]]:
    """The updates by published name, and an error message for every module that does not fit."""
    updates: dict[str, LayerUpdate] = {}
    owners: dict[str, Stored] = {}
    misfits, twice = [], 0
    # Some published files have the same layers in two spellings; diffusers takes its own.
    for stored in sorted(found, key=lambda one: not one.modules.foreign):
        others = {owners[name].module for name in stored.modules.names if name in owners}
        same = {owners[name].modules.foreign for name in stored.modules.names if name in owners}
        if stored.modules.foreign in same:
            misfits.append(f"{stored.module}: in the file twice, also as {', '.join(others)}")
            continue
        twice += bool(others)
        owners |= dict.fromkeys(stored.modules.names, stored)
        try:
            updates |= layer_updates(stored, shapes, settings, layout)
        except ValueError as error:
            misfits.append(str(error))
    if twice:
        logging.warning("%s has %d layers in two spellings: diffusers' is used", path, twice)
    return updates, misfits


def _has_other_width(stored: Stored, shapes: Shapes) -> bool:
    """Whether neither inputs nor outputs are the model's."""
    down, up = (stored.parts.get(part, np.zeros(0)).shape for part in (DOWN, UP))
    inputs, outputs = (
        shapes[stored.modules.names[0]][0],
        sum(shapes[name][-1] for name in stored.modules.names),
    )
    return len(down) > 1 and len(up) > 1 and down[1] != inputs and up[0] != outputs


def _no_adapter(path: Path, keys: Iterable[str], shapes: Shapes, layout: Layout) -> str:
    """What a file without a single part of an adapter is."""
    table = spelled_modules(shapes, layout)
    whole = [
        key
        for key in sorted(keys)
        if find_modules(key.removesuffix(".weight").removesuffix(".bias"), table, layout)
    ]
    if whole:
        return f"{path} is a whole transformer ({whole[0]}), no adapter: pass it as the transformer"
    example = sorted(keys)[0]
    return f"{path} is no adapter: it has no lora_A and lora_B, but tensors such as {example}"


def _warn_of_text_encoders(path: Path, beside: Iterable[str]) -> None:
    counts = Counter(text_encoder_of(key) for key in beside)
    if counts:
        told = " and ".join(f"{count} for {encoder}" for encoder, count in sorted(counts.items()))
        logging.warning(
            "adapter %s also has tensors for the text encoders, which are left out: %s", path, told
        )


def _warn_of_missing_alpha(path: Path, metadata: Mapping[str, str], keys: Iterable[str]) -> None:
    """kohya's files have a tensor `alpha` for every layer; somebody may have dropped them."""
    alpha, rank = (metadata.get(f"ss_network_{name}") for name in ("alpha", "dim"))
    parts = {parsed.part for parsed in map(parse_key, keys) if parsed}
    if alpha and rank and ALPHA not in parts:
        try:
            same = float(alpha) == float(rank)
        except ValueError:  # "Dynamic", "None"
            return
        if not same:
            logging.warning(
                "adapter %s has no tensors alpha, so its scale is 1, although its metadata states "
                "alpha %s of rank %s", path, alpha, rank,
            )  # fmt: skip


def _assemble(
    updates: Mapping[str, LayerUpdate],
    abstract_params: PyTree,
    names: Mapping[lora.Path, tuple[str, ...]],
    shapes: Shapes,
) -> Adapter:
    """The updates as the pytrees of an `Adapter`, one leaf for the layers of a stack."""
    kernels = lora.kernels_of(abstract_params)
    ranks = {
        module: max(len(updates[name].a) for name in found if name in updates)
        for module, found in names.items()
        if any(name in updates for name in found)
    }
    abstract = flatten_dict(lora.abstract_factors(abstract_params, ranks))
    factors, scales, biases, magnitudes = {}, {}, {}, {}
    for module, rank in ranks.items():
        layers = [updates.get(name) for name in names[module]]
        stacked = kernels[module].ndim > 2
        inputs, outputs = shapes[names[module][0]]

        a = np.zeros((len(layers), inputs, rank), np.float32)
        b = np.zeros((len(layers), rank, outputs), np.float32)
        scale = np.ones(len(layers), np.float32)
        for layer, update in enumerate(layers):
            if update is not None:
                own = len(update.a)
                a[layer, :, :own], b[layer, :own] = update.a.T, update.b.T
                scale[layer] = update.scale
        for path, value in (((*module, FACTOR_A), a), ((*module, FACTOR_B), b)):
            factors[path] = _place(value if stacked else value[0], abstract[path])
        scales[module] = jnp.asarray(scale if stacked else scale[0])
        for name, kept in (("bias", biases), ("magnitude", magnitudes)):
            extra = _extra(layers, name, (inputs, outputs))
            if extra is not None:
                kept[module] = jnp.asarray(extra if stacked else extra[0])
    return Adapter(*map(unflatten_dict, (factors, scales, biases, magnitudes)))


def _extra(
    layers: Sequence[LayerUpdate | None], name: str, shape: tuple[int, int]
) -> np.ndarray | None:
    """Biases [l, o] or magnitudes [l, 1, o] or [l, i, 1] of a stack, zero where there are none."""
    values = [update and getattr(update, name) for update in layers]
    given = [value for value in values if value is not None]
    if not given:
        return None
    inputs, outputs = shape
    if name == "bias":
        empty = np.zeros(outputs, np.float32)
    else:
        kinds = {value.shape[0] == 1 for value in given}
        if len(kinds) > 1:
            raise ValueError("DoRA by inputs and by outputs in one file is not read")
        empty = np.zeros((inputs, 1) if kinds == {True} else (1, outputs), np.float32)
        values = [value if value is None else value.T for value in values]
    return np.stack([empty if value is None else value for value in values])


def _place(value: np.ndarray, abstract: jax.ShapeDtypeStruct) -> jax.Array:
    if abstract.sharding is None:
        return jnp.asarray(value)
    return jax.make_array_from_callback(value.shape, abstract.sharding, lambda index: value[index])
