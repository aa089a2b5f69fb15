"""LoRA files of diffusers and peft <-> LoRA factors, strict in both directions.

    pytorch_lora_weights.safetensors                     diffusers' pipelines and models
    adapter_model.safetensors with adapter_config.json   peft's own folder

Names are `transformer.<module>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r] (also
`lora_down`, `lora_up`). Diffusers' models omit the prefix, peft writes another one, and kohya and
XLabs have their own names (`lora_dialects`). The scale alpha / r comes from the metadata
`lora_adapter_metadata`, from adapter_config.json, or from tensors `<module>.alpha`; default 1.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from onereward_jax.common.listing import listed
from onereward_jax.convert.atomic_folder import atomic_folder
from onereward_jax.convert.layouts import Layout
from onereward_jax.convert.lora_dialects import diffusers_names
from onereward_jax.convert.lora_targets import published_modules
from onereward_jax.convert.safetensors_reader import DTYPES, read_json
from onereward_jax.convert.save import write_json
from onereward_jax.convert.tensor_names import entry_of, published_name, torch_name, unbox
from onereward_jax.models import lora
from onereward_jax.models.lora import FACTOR_A, FACTOR_B, Adapter
from onereward_jax.parallel import is_writer

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
METADATA = "lora_adapter_metadata"
PREFIX = "transformer."
KEY = re.compile(
    r"(?:base_model\.model\.)?(?:transformer\.)?(?P<module>.+)\."
    r"(?P<part>lora_A\.weight|lora_B\.weight|lora_down\.weight|lora_up\.weight|alpha)"
)
PARTS = {
    "lora_A.weight": FACTOR_A,
    "lora_down.weight": FACTOR_A,
    "lora_B.weight": FACTOR_B,
    "lora_up.weight": FACTOR_B,
    "alpha": "alpha",
}
UNSUPPORTED = ("use_dora", "lora_bias")

Modules = dict[str, dict[str, np.ndarray]]
"""Published module name -> {FACTOR_A: [r, in], FACTOR_B: [out, r], "alpha": []}."""


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder has an adapter instead of a full model."""
    return any((Path(folder) / name).is_file() for name in (ADAPTER_FILE, PEFT_FILE))


def load_adapter(source: str | Path, abstract_params: PyTree, layout: Layout) -> Adapter:
    """Loads an adapter from a file or a folder, in float32.

    Layers of a stack that the file omits, and layers with a rank below the stack's largest, are
    padded with zeros, which have no effect.

    Args:
      source: a safetensors file, or a folder that has one under its usual name.
      abstract_params: shapes (and shardings) of the model's parameters; factors are sharded like
        their kernels.
      layout: the architecture's `Layout`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: not safetensors, an unsupported kind of adapter (DoRA, LoRA bias), or any mismatch
        of names and shapes; all mismatches are listed at once.
    """
    path = _find_file(Path(source))
    tensors, settings = _read(path)
    abstract_params = unbox(abstract_params)
    names = published_modules(abstract_params, layout)
    kernels = lora.kernels_of(abstract_params)
    shapes = {name: kernels[module].shape[-2:] for module, found in names.items() for name in found}
    tensors, odd = diffusers_names(tensors, shapes)
    modules, problems = _sort_tensors(tensors, shapes, layout)
    problems += odd
    problems += [f"{name} is not supported" for name in UNSUPPORTED if settings.get(name)]
    if problems:
        raise ValueError(f"adapter {path} does not fit the model:" + listed(problems))

    ranks = {
        module: max(modules[name][FACTOR_A].shape[0] for name in found if name in modules)
        for module, found in names.items()
        if any(name in modules for name in found)
    }
    abstract = flatten_dict(lora.abstract_factors(abstract_params, ranks))
    factors, scales = {}, {}
    for module, rank in ranks.items():
        found = names[module]
        a, b, scale = _stack(modules, found, shapes[found[0]], rank, settings, layout)
        if kernels[module].ndim == 2:
            a, b, scale = a[0], b[0], scale[0]
        for path, value in (((*module, FACTOR_A), a), ((*module, FACTOR_B), b)):
            factors[path] = _place(value, abstract[path])
        scales[module] = jnp.asarray(scale)
    return Adapter(unflatten_dict(factors), unflatten_dict(scales))


def save_adapter(
    folder: str | Path, adapter: Adapter, layout: Layout, *, dtype: Any = np.float32
) -> None:
    """Writes a folder with `pytorch_lora_weights.safetensors`, atomically.

    `FluxFillPipeline.load_lora_weights` and `load_lora_adapter` can load it. The scale is written
    to the metadata, as by diffusers. Layers and ranks that are zero in both A and B are omitted.
    All processes must call it.

    Args:
      folder: an existing one is replaced as a whole.
      adapter: the adapter to write.
      layout: the architecture's `Layout`.
      dtype: dtype of the tensors.

    Raises:
      ValueError: all factors are zero.
    """
    pairs, settings = _published(folder, adapter, layout)
    with atomic_folder(folder) as draft:
        if is_writer():
            settings = {PREFIX + name: value for name, value in settings.items()}
            metadata = {"format": "pt", METADATA: json.dumps(settings, indent=2, sort_keys=True)}
            _write(draft / ADAPTER_FILE, pairs, PREFIX, dtype, metadata)


def save_peft_adapter(
    folder: str | Path, adapter: Adapter, layout: Layout, *, base_model: str
) -> None:
    """Writes a folder that `peft.PeftModel.from_pretrained` loads onto the torch model, atomically.

    Otherwise as `save_adapter`, in float32.

    Args:
      folder, adapter, layout: see `save_adapter`.
      base_model: hub id or folder of the base, for adapter_config.json.

    Raises:
      ValueError: all factors are zero.
    """
    pairs, settings = _published(folder, adapter, layout, torch_names=True)
    with atomic_folder(folder) as draft:
        if is_writer():
            kind = {"peft_type": "LORA", "base_model_name_or_path": base_model}
            write_json(draft / PEFT_CONFIG, kind | settings)
            _write(draft / PEFT_FILE, pairs, "base_model.model.", np.float32, {"format": "pt"})


def _published(
    folder: str | Path, adapter: Adapter, layout: Layout, *, torch_names: bool = False
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, Any]]:
    """{module name: (A [r, in], B [out, r])} without idle layers and ranks, and peft's settings."""
    pairs, ranks, alphas = {}, {}, {}
    scales = flatten_dict(jax.device_get(adapter.scales))
    factors = {path: _gather(leaf) for path, leaf in flatten_dict(adapter.factors).items()}
    for module in scales:
        a, b = factors[*module, FACTOR_A], factors[*module, FACTOR_B]
        shape = (*a.shape[:-1], b.shape[-1])
        entry = entry_of("/".join((*module, "kernel")), shape, layout, {})
        rows = zip(a, b, scales[module]) if entry.stacked else [(a, b, scales[module])]
        for key, (down, up, scale) in zip(entry.keys, rows):
            used = np.flatnonzero(down.any(axis=0) | up.any(axis=1))
            if not used.size:
                continue
            name, rank = key.removesuffix(".weight"), int(used[-1]) + 1
            name = torch_name(name, layout) if torch_names else name
            ranks[name], alphas[name] = rank, round(float(scale) * rank, 6)
            pairs[name] = (down[:, :rank].T, up[:rank].T)
    if not pairs:
        raise ValueError(f"adapter for {folder}: all factors are zero")
    return pairs, _settings(ranks, alphas)


def _write(
    path: Path,
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    prefix: str,
    dtype: Any,
    metadata: dict[str, str],
) -> None:
    tensors = {
        f"{prefix}{name}.{part}.weight": np.ascontiguousarray(value, dtype)
        for name, pair in pairs.items()
        for part, value in zip(("lora_A", "lora_B"), pair)
    }
    save_file(tensors, path, metadata=metadata)
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors: readable only by its owner


def _find_file(source: Path) -> Path:
    if source.is_file():
        return source
    for name in (ADAPTER_FILE, PEFT_FILE):
        if (source / name).is_file():
            return source / name
    raise FileNotFoundError(f"no adapter in {source}: neither {ADAPTER_FILE} nor {PEFT_FILE}")


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors by their names in the file, and the LoRA settings from metadata or peft's config."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            dtypes = {key: file.get_slice(key).get_dtype() for key in file.keys()}
            odd = [f"{key}: dtype {dtype}" for key, dtype in dtypes.items() if dtype not in DTYPES]
            if odd:
                raise ValueError(f"{path}: {odd[0]} is not one of {', '.join(DTYPES)}")
            tensors = {key: file.get_tensor(key) for key in dtypes}
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not safetensors: {error}") from error
    if METADATA in metadata:
        try:
            found = json.loads(metadata[METADATA])
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: metadata {METADATA} is not JSON: {error}") from error
        return tensors, {key.removeprefix(PREFIX): value for key, value in found.items()}
    config = path.with_name(PEFT_CONFIG)
    return tensors, read_json(config) if path.name == PEFT_FILE and config.is_file() else {}


def _sort_tensors(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], layout: Layout
) -> tuple[Modules, list[str]]:
    """Tensors by module and part, and an error message for everything that does not fit."""
    modules: Modules = {}
    problems = []
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None:
            problems.append(f"{key}: not a lora_A, lora_B or alpha of a linear layer")
            continue
        module, part = published_name(match["module"], layout), PARTS[match["part"]]
        if module not in shapes:
            problems.append(f"{key}: in the file, but {module} is not in the model")
        elif part in modules.setdefault(module, {}):
            problems.append(f"{key}: twice in the file")
        else:
            modules[module][part] = tensor
    for name, parts in modules.items():
        pair = (("lora_A", FACTOR_A), ("lora_B", FACTOR_B))
        missing = [part for part, leaf in pair if leaf not in parts]
        if missing:
            problems.append(f"{name}: {' and '.join(missing)} is missing in the file")
            continue
        inputs, outputs = shapes[name]
        a, b = parts[FACTOR_A].shape, parts[FACTOR_B].shape
        rank = a[0] if a else 0
        if a != (rank, inputs) or b != (outputs, rank) or not rank:
            problems.append(
                f"{name}: lora_A {a} and lora_B {b}, expected [r, {inputs}] and [{outputs}, r]"
            )
        if parts.get("alpha", np.zeros(1)).size != 1:
            problems.append(f"{name}: alpha has shape {parts['alpha'].shape}, expected a number")
    if not modules and not problems:
        problems.append("it is empty")
    return modules, problems


def _stack(
    modules: Modules,
    names: tuple[str, ...],
    shape: tuple[int, ...],
    rank: int,
    settings: Mapping[str, Any],
    layout: Layout,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A [l, in, rank], B [l, rank, out] and scales [l] of the layers of one module."""
    inputs, outputs = shape
    a = np.zeros((len(names), inputs, rank), np.float32)
    b = np.zeros((len(names), rank, outputs), np.float32)
    scales = np.ones(len(names), np.float32)
    for layer, name in enumerate(names):
        if name not in modules:
            continue
        down, up = modules[name][FACTOR_A], modules[name][FACTOR_B]
        a[layer, :, : len(down)], b[layer, : len(down)] = down.T, up.T
        spellings = (name, torch_name(name, layout))
        scales[layer] = _scale(spellings, len(down), modules[name].get("alpha"), settings)
    return a, b, scales


def _scale(
    spellings: tuple[str, ...], rank: int, alpha: np.ndarray | None, settings: Mapping[str, Any]
) -> float:
    """The factor by which peft multiplies the B A of this module, which has these names."""
    if alpha is not None:
        return float(alpha.reshape(())) / rank
    if "lora_alpha" not in settings:
        return 1.0
    value = settings["lora_alpha"]
    for pattern, exception in (settings.get("alpha_pattern") or {}).items():
        if any(re.match(rf"(.*\.)?({pattern})$", name) for name in spellings):
            value = exception
            break
    return value / (rank**0.5 if settings.get("use_rslora") else rank)


def _settings(ranks: Mapping[str, int], alphas: Mapping[str, float]) -> dict[str, Any]:
    """peft's LoraConfig for these modules: the most common values, and patterns for the rest."""
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{re.escape(n)}": r for n, r in ranks.items() if r != rank},
        "alpha_pattern": {f"^{re.escape(n)}": a for n, a in alphas.items() if a != alpha},
        "target_modules": sorted(ranks),
    }


def _gather(leaf: Any) -> np.ndarray:
    """A factor as a full numpy array on the host."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _place(value: np.ndarray, abstract: jax.ShapeDtypeStruct) -> jax.Array:
    if abstract.sharding is None:
        return jnp.asarray(value)
    return jax.make_array_from_callback(value.shape, abstract.sharding, lambda index: value[index])
