"""Writes LoRA adapters as diffusers, peft, kohya (sd-scripts) and ComfyUI name their tensors.

    transformer.transformer_blocks.0.attn.to_q.lora_A.weight        diffusers
    base_model.model.transformer_blocks.0.attn.to_q.lora_A.weight   peft
    lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight         kohya; ComfyUI reads it, too
    diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight   ComfyUI's own

The last two are of the original release's fused layers. Layers of one A share it; others have their
A one below the other and their B as blocks on the diagonal, so nothing is approximated.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils
from safetensors.numpy import save_file

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.convert.atomic_folder import atomic_folder
from onereward_jax.convert.bfl_names import SWAPPED, bfl_module, diffusers_modules
from onereward_jax.convert.layouts import Layout
from onereward_jax.convert.lora_files import ADAPTER_FILE, PEFT_CONFIG, PEFT_FILE
from onereward_jax.convert.lora_settings import METADATA, PREFIX
from onereward_jax.convert.save import write_json
from onereward_jax.convert.tensor_names import entry_of, torch_name
from onereward_jax.models.lora import FACTOR_A, FACTOR_B, Adapter
from onereward_jax.parallel import is_writer

SPELLINGS = ("diffusers", "kohya", "comfyui")


class Pair(NamedTuple):
    """A [r, in] and B [out, r] of a layer, and its scale."""

    a: np.ndarray
    b: np.ndarray
    scale: float


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
    pairs = _pairs(folder, adapter, layout)
    with atomic_folder(folder) as draft:
        if is_writer():
            _write(draft / ADAPTER_FILE, *_in_diffusers_names(pairs), dtype)


def save_adapter_file(
    path: str | Path,
    adapter: Adapter,
    layout: Layout,
    *,
    spelling: str = "diffusers",
    dtype: Any = np.float32,
) -> None:
    """Writes a FLUX adapter as one file, atomically; otherwise as `save_adapter`.

    Args:
      path: the file.
      adapter, layout, dtype: see `save_adapter`.
      spelling: one of `SPELLINGS`.

    Raises:
      ValueError: all factors are zero.
    """
    pairs = _pairs(path, adapter, layout)
    if not is_writer():
        return
    if spelling == "diffusers":
        content = _in_diffusers_names(pairs)
    else:
        content = in_bfl_names(pairs, spelling)
    with atomic_file(path) as draft:
        _write(draft, *content, dtype)


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
    pairs = {
        torch_name(name, layout): pair for name, pair in _pairs(folder, adapter, layout).items()
    }
    with atomic_folder(folder) as draft:
        if is_writer():
            kind = {"peft_type": "LORA", "base_model_name_or_path": base_model}
            write_json(draft / PEFT_CONFIG, kind | _settings(pairs))
            tensors = _factors(pairs, "base_model.model.")
            _write(draft / PEFT_FILE, tensors, {"format": "pt"}, np.float32)


def _pairs(target: str | Path, adapter: Adapter, layout: Layout) -> dict[str, Pair]:
    """The layers by published name, without idle layers and ranks."""
    if adapter.biases or adapter.magnitudes:
        raise ValueError(f"adapter for {target}: only LoRA without biases can be written, not DoRA")
    pairs = {}
    scales = flatten_dict(jax.device_get(adapter.scales))
    factors = {path: _gather(leaf) for path, leaf in flatten_dict(adapter.factors).items()}
    for module in scales:
        a, b = factors[*module, FACTOR_A], factors[*module, FACTOR_B]
        shape = (*a.shape[:-1], b.shape[-1])
        entry = entry_of("/".join((*module, "kernel")), shape, layout, {})
        rows = zip(a, b, scales[module]) if entry.stacked else [(a, b, scales[module])]
        for key, (down, up, scale) in zip(entry.keys, rows):
            used = np.flatnonzero(down.any(axis=0) | up.any(axis=1))
            if used.size:
                rank = int(used[-1]) + 1
                name = key.removesuffix(".weight")
                pairs[name] = Pair(down[:, :rank].T, up[:rank].T, float(scale))
    if not pairs:
        raise ValueError(f"adapter for {target}: all factors are zero")
    return pairs


def _in_diffusers_names(
    pairs: Mapping[str, Pair],
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata as of `FluxFillPipeline.save_lora_weights`."""
    settings = {PREFIX + name: value for name, value in _settings(pairs).items()}
    metadata = {"format": "pt", METADATA: json.dumps(settings, indent=2, sort_keys=True)}
    return _factors(pairs, PREFIX), metadata


def in_bfl_names(
    pairs: Mapping[str, Pair], spelling: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata as of sd-scripts' networks/lora_flux.py, or with ComfyUI's prefix."""
    tensors, ranks = {}, []
    for module in dict.fromkeys(bfl_module(name)[0] for name in pairs):
        names = diffusers_modules(module)
        pair = _fused([pairs.get(name) for name in names], names)
        if module == SWAPPED:
            pair = pair._replace(b=np.concatenate(np.split(pair.b, 2)[::-1]))
        name = f"diffusion_model.{module}"
        if spelling == "kohya":
            name = f"lora_unet_{module.replace('.', '_')}"
        ranks.append(len(pair.a))
        tensors[f"{name}.lora_down.weight"] = pair.a
        tensors[f"{name}.lora_up.weight"] = pair.b
        tensors[f"{name}.alpha"] = np.float32(pair.scale * len(pair.a))
    rank = Counter(ranks).most_common(1)[0][0]
    metadata = {"format": "pt", "ss_base_model_version": "flux1", "ss_network_dim": str(rank)}
    return tensors, metadata


def _fused(parts: Sequence[Pair | None], names: Sequence[str]) -> Pair:
    """One pair for layers whose rows are one below the other; None: a layer without any."""
    given = [pair for pair in parts if pair is not None]
    first = given[0]
    width = first.a.shape[1]
    # Of the fused layers, only an MLP has another number of rows than of columns (in FLUX, 4 x).
    rows = [
        len(pair.b) if pair is not None else width * (4 if name.endswith("proj_mlp") else 1)
        for pair, name in zip(parts, names, strict=True)
    ]
    scale = first.scale if all(pair.scale == first.scale for pair in given) else 1.0
    shared = all(np.array_equal(pair.a, first.a) for pair in given)
    a = first.a if shared else np.concatenate([pair.a for pair in given])
    b = np.zeros((sum(rows), len(a)), first.b.dtype)
    row = column = 0
    for pair, count in zip(parts, rows):
        if pair is not None:
            rank = len(pair.a)
            b[row : row + count, column : column + rank] = pair.b * np.float32(pair.scale / scale)
            column += 0 if shared else rank
        row += count
    return Pair(a, b, scale)


def _factors(pairs: Mapping[str, Pair], prefix: str) -> dict[str, np.ndarray]:
    return {
        f"{prefix}{name}.{part}.weight": value
        for name, pair in pairs.items()
        for part, value in (("lora_A", pair.a), ("lora_B", pair.b))
    }


def _write(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str], dtype: Any
) -> None:
    """Writes a file. Numbers such as alpha stay float32."""
    kept = {
        key: np.ascontiguousarray(value, dtype) if np.ndim(value) else np.array(value, np.float32)
        for key, value in tensors.items()
    }
    save_file(kept, path, metadata=metadata)
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors: readable only by its owner


def _settings(pairs: Mapping[str, Pair]) -> dict[str, Any]:
    """peft's LoraConfig for these layers: the most common values, and patterns for the rest."""
    ranks = {name: len(pair.a) for name, pair in pairs.items()}
    alphas = {name: round(pair.scale * ranks[name], 6) for name, pair in pairs.items()}
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
