"""What a judge's folder holds: a whole Qwen2.5-VL, or a peft adapter and the name of its base.

transformers wrote these folders in several ways since 4.49. Where they leave a choice, it is made
as transformers 5 makes it; what is not read is refused in one sentence.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from onereward_jax.common.listing import shown
from onereward_jax.convert import QWEN2_5_VL, is_adapter, resolve_folder
from onereward_jax.convert.layouts import check_architecture
from onereward_jax.convert.lora_files import PEFT_CONFIG, PEFT_FILE
from onereward_jax.convert.model_index import one_models_config
from onereward_jax.convert.safetensors_reader import (
    DTYPES,
    StoredTensor,
    find_tensors,
    read_json,
)
from onereward_jax.convert.tensor_names import published_name
from onereward_jax.convert.tied_copies import same_values
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VLConfig

HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"
"""Published names of the output projection and of the table of words."""

MERGE = "merge it with peft's merge_and_unload() and save the whole model"

UNREAD_FILES = {
    ".gguf": "GGUF files are not read: name the transformers folder that they were made from",
    ".bin": "pickles are not read: load it with transformers and save it with save_pretrained",
    ".pt": "pickles are not read: load it with transformers and save it with save_pretrained",
    ".pth": "pickles are not read: load it with transformers and save it with save_pretrained",
}
"""Suffix of weights of another format -> what to do."""

QUANTIZED = {
    r"\.(qweight|qzeros|g_idx|scales)$": "AWQ or GPTQ",
    r"\.(absmax|quant_map|quant_state\..*|nested_absmax|SCB|weight_format)$": "bitsandbytes",
    r"\.(weight_scale|weight_scale_inv|weight_scale_2|input_scale)$": "fp8",
    r"\.(weight_packed|weight_shape|weight_zero_point)$": "compressed-tensors",
}
"""Names that only quantised weights have -> what wrote them."""


@dataclasses.dataclass(frozen=True)
class JudgeFolder:
    """Where the parts of a judge are.

    Attributes:
      model: folder of config, weights, tokenizer and image processor.
      adapter: folder of the adapter to be merged into these weights, or None.
    """

    model: Path
    adapter: Path | None

    @property
    def query(self) -> Path:
        """The folder whose query template counts."""
        return self.model if self.adapter is None else self.adapter


def find_judge(folder: str | Path) -> JudgeFolder:
    """The parts of the judge in `folder`; an adapter's base is found by its name, as in peft.

    A folder with an adapter beside a whole model is both, as for transformers.

    Raises:
      FileNotFoundError: the base does not exist.
      ValueError: not a folder, or an adapter without base, weights or a kind that is read.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"{folder} is a file: a judge is a folder in transformers' layout")
    if not (folder / PEFT_CONFIG).is_file():
        if not (folder / "config.json").is_file() and is_adapter(folder):
            raise ValueError(f"{folder} has an adapter, but no {PEFT_CONFIG} that names its base")
        return JudgeFolder(folder, None)
    settings = read_json(folder / PEFT_CONFIG)
    whole = (folder / "config.json").is_file()
    if not (folder / PEFT_FILE).is_file():
        advice = f"; remove {PEFT_CONFIG} if the whole model beside it is meant" if whole else ""
        raise ValueError(f"{folder} has an {PEFT_CONFIG}, but no {PEFT_FILE}{advice}")
    _check_adapter(folder, settings)
    if whole:
        return JudgeFolder(folder, folder)
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ValueError(f"{folder}/{PEFT_CONFIG} names no base (base_model_name_or_path)")
    model = resolve_folder(base, f"{folder}/{PEFT_CONFIG}, base_model_name_or_path")
    if find_judge(model).adapter is not None:
        raise ValueError(f"{folder} is an adapter of an adapter, {base}: merge that one first")
    return JudgeFolder(model, folder)


def _check_adapter(folder: Path, settings: Mapping[str, Any]) -> None:
    kind = settings.get("peft_type", "LORA")
    if kind != "LORA":
        raise ValueError(
            f"{folder} is an adapter of peft's kind {shown(kind)}; only LORA is read: {MERGE}"
        )
    if whole := settings.get("modules_to_save"):
        raise ValueError(
            f"{folder} is an adapter with whole modules beside the factors (modules_to_save "
            f"{shown(whole)}), which are not read: {MERGE}"
        )


def judge_config(folder: str | Path) -> Qwen2_5_VLConfig:
    """The sizes of the model in `folder`, and whether its output projection is the word table.

    Raises:
      FileNotFoundError: there is no config.json.
      ValueError: another kind of model, quantised weights, or a field that is not implemented.
    """
    folder = Path(folder)
    content = _config(folder)
    try:
        config = Qwen2_5_VLConfig.from_dict(content)
    except ValueError as error:
        raise ValueError(f"{folder}/config.json: {error}") from error
    return dataclasses.replace(config, tie_word_embeddings=_tied(folder, config))


def written_config(folder: str | Path) -> dict[str, Any]:
    """The config.json of `folder`, for a copy of its model: all its flags tell the same head."""
    config = _config(Path(folder))
    tied = {"tie_word_embeddings": judge_config(folder).tie_word_embeddings}
    if config.get("text_config"):
        tied["text_config"] = config["text_config"] | tied
    return config | tied


def check_weights(folder: Path) -> None:
    """Says in one sentence why the weights in `folder` cannot be read, where that is known.

    Raises:
      FileNotFoundError: there are only files of another format.
      ValueError: an adapter that is not merged, or no output projection.
    """
    if not any(folder.glob("model*.safetensors*")):
        for path in sorted(folder.iterdir()):
            if advice := UNREAD_FILES.get(path.suffix):
                raise FileNotFoundError(f"no safetensors in {folder}, but {path.name}: {advice}")
        return
    files = find_tensors(folder, QWEN2_5_VL.basename)
    if loose := next((key for key in files if ".lora_A." in key or ".base_layer." in key), None):
        raise ValueError(f"{folder} has an adapter that is not merged ({shown(loose)}): {MERGE}")
    names = {published_name(key, QWEN2_5_VL) for key in files}
    if TABLE in names and HEAD not in names and not judge_config(folder).tie_word_embeddings:
        raise ValueError(
            f"{folder} has no {HEAD}, but its config.json says tie_word_embeddings = false: "
            "transformers would draw one at random"
        )


def _config(folder: Path) -> dict[str, Any]:
    """config.json of an unquantised Qwen2.5-VL."""
    config, source = one_models_config(folder, QWEN2_5_VL), f"{folder}/config.json"
    kind = config.get("model_type")
    if kind != QWEN2_5_VL.model_type:
        found = kind or config.get("_class_name") or "model without model_type"
        raise ValueError(
            f"{source} describes a {shown(found)}; judges are Qwen2.5-VL (qwen2_5_vl) only"
        )
    check_architecture(config, QWEN2_5_VL, source)
    if settings := config.get("quantization_config"):
        method = settings.get("quant_method") if isinstance(settings, Mapping) else None
        raise _quantized(folder, method or "bitsandbytes", "config.json, quantization_config")
    for key, tensor in _files(folder).items():
        for pattern, method in QUANTIZED.items():
            if re.search(pattern, key):
                raise _quantized(folder, method, key)
        if tensor.kind not in DTYPES:
            raise _quantized(folder, tensor.kind, key)
    return config


def _quantized(folder: Path, method: str, where: str) -> ValueError:
    return ValueError(
        f"{folder} has weights quantised by {shown(method)} ({shown(where)}), which are not read: "
        "name the model that it was made from, in bfloat16 or float16"
    )


def _tied(folder: Path, config: Qwen2_5_VLConfig) -> bool:
    """As transformers 5: tied if a flag says so, unless the files have another head."""
    if not config.tie_word_embeddings:
        return False
    tensors = {published_name(key, QWEN2_5_VL): tensor for key, tensor in _files(folder).items()}
    if HEAD not in tensors or TABLE not in tensors:
        return True
    head, table = tensors[HEAD], tensors[TABLE]
    return _same(head, table, *(one.path.stat().st_mtime_ns for one in (head, table)))


@functools.lru_cache(maxsize=16)
def _same(head: StoredTensor, table: StoredTensor, *_changed: int) -> bool:
    """Whether both have the same values; a gigabyte may have to be read, so it is remembered."""
    same = same_values(head, table)
    if not same:
        logging.warning(
            "%s: config.json says tie_word_embeddings, but %s differs from the table of words: it "
            "is used as it is, as in transformers 5",
            head.path, HEAD,
        )  # fmt: skip
    return same


def _files(folder: Path) -> Mapping[str, StoredTensor]:
    """The tensors of a folder; none of a folder that has only the sizes."""
    try:
        return find_tensors(folder, QWEN2_5_VL.basename)
    except FileNotFoundError:
        return {}
