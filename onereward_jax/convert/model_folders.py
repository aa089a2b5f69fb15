"""Writes full model folders: the editor's (diffusers) and the judge's (transformers).

    editor/  model_index.json  transformer/  vae/  text_encoder/ (CLIP)  text_encoder_2/ (T5)
             tokenizer/  tokenizer_2/  scheduler/
    judge/   config.json  model.safetensors  tokenizer files with the chat template
             preprocessor_config.json

These are the layouts of FLUX.1-Fill-dev and Qwen2.5-VL; the mini models use them too. diffusers'
`FluxFillPipeline` and transformers' `AutoProcessor` can load the folders.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onereward_jax.common.listing import shown
from onereward_jax.convert.atomic_folder import atomic_folder
from onereward_jax.convert.layouts import CLIP, FLUX, QWEN2_5_VL, T5, VAE, Layout
from onereward_jax.convert.safetensors_reader import read_json
from onereward_jax.convert.save import MAX_SHARD_BYTES, write_json, write_params
from onereward_jax.convert.tokenizers import Tokenizer
from onereward_jax.parallel import is_writer

EDITING = "editing.json"
"""In an editor's folder: the settings it works best with, see `inference.edit_defaults`."""

# component of a FluxFillPipeline -> (library, class) in model_index.json
PIPELINE = {
    "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "T5EncoderModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "tokenizer_2": ("transformers", "T5TokenizerFast"),
    "transformer": ("diffusers", "FluxTransformer2DModel"),
    "vae": ("diffusers", "AutoencoderKL"),
}
TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
JUDGE_FILES = (*TOKENIZER_FILES, "generation_config.json", "video_preprocessor_config.json")
"""Files copied from one judge folder to another. Only transformers reads the last two."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Weights:
    """A component to write.

    Attributes:
      params: its Flax parameter tree.
      config: content of its config.json.
      dtype: dtype of the written tensors; None: each leaf's own.
      max_shard_bytes: see `save_params`.
    """

    params: Any
    config: Mapping[str, Any]
    dtype: Any = None
    max_shard_bytes: int = MAX_SHARD_BYTES

    def write(self, folder: Path, layout: Layout) -> None:
        """Writes the component into an existing folder, see `write_params`."""
        write_params(
            folder,
            self.params,
            layout,
            config=self.config,
            dtype=self.dtype,
            max_shard_bytes=self.max_shard_bytes,
        )


def write_editor_folder(
    folder: str | Path,
    *,
    transformer: Weights | Path,
    vae: Weights | Path,
    text_encoder: Weights | Path,
    text_encoder_2: Weights | Path,
    tokenizer: Tokenizer | Path,
    tokenizer_2: Tokenizer | Path,
    scheduler: Mapping[str, Any],
    editing: Mapping[str, Any] | None = None,
) -> None:
    """Writes a folder that `diffusers.FluxFillPipeline.from_pretrained` can load.

    The write is atomic; an existing folder is replaced as a whole. All processes must call it;
    process 0 writes.

    Args:
      folder: the pipeline's folder.
      transformer, vae, text_encoder, text_encoder_2: new weights, or a component's folder to copy
        unchanged (`Path("FLUX.1-Fill-dev/vae")`).
      tokenizer, tokenizer_2: CLIP's and T5's tokenizers, or their folders to copy.
      scheduler: fields of FlowMatchEulerDiscreteScheduler's scheduler_config.json.
      editing: fields of `EDITING`, see `inference.edit_defaults`; None for no such file.

    Raises:
      FileNotFoundError: a folder to copy does not exist.
      ValueError: see `save_params`.
    """
    models: dict[str, tuple[Weights | Path, Layout]] = {
        "transformer": (transformer, FLUX),
        "vae": (vae, VAE),
        "text_encoder": (text_encoder, CLIP),
        "text_encoder_2": (text_encoder_2, T5),
    }
    with atomic_folder(folder) as draft:
        for name, (model, layout) in models.items():
            if isinstance(model, Path):
                _copy_folder(model, draft / name)
                continue
            if is_writer():
                (draft / name).mkdir()
            model.write(draft / name, layout)
        if not is_writer():
            return
        for name, source in (("tokenizer", tokenizer), ("tokenizer_2", tokenizer_2)):
            if isinstance(source, Path):
                _copy_folder(source, draft / name)
            else:
                source.save_pretrained(draft / name)
        (draft / "scheduler").mkdir()
        class_name = {"_class_name": PIPELINE["scheduler"][1]}
        write_json(draft / "scheduler" / "scheduler_config.json", {**class_name, **scheduler})
        write_json(draft / "model_index.json", {"_class_name": "FluxFillPipeline", **PIPELINE})
        if editing is not None:
            write_json(draft / EDITING, editing)


def write_judge_folder(
    folder: str | Path,
    *,
    model: Weights,
    tokenizer: Tokenizer | Path,
    preprocessor: Mapping[str, Any],
) -> None:
    """Writes a folder that transformers' Qwen2_5_VLForConditionalGeneration and AutoProcessor load.

    Atomic, like `write_editor_folder`; all processes must call it.

    Args:
      folder: the model's folder.
      model: weights of the judge.
      tokenizer: a tokenizer with a chat template; or a judge folder whose `JUDGE_FILES` are copied.
      preprocessor: contents of preprocessor_config.json, see `preprocessor_config`.

    Raises:
      FileNotFoundError: the folder to copy from has no tokenizer.
      ValueError: see `save_params`.
    """
    with atomic_folder(folder) as draft:
        model.write(draft, QWEN2_5_VL)
        if not is_writer():
            return
        if isinstance(tokenizer, Path):
            if not (tokenizer / "tokenizer_config.json").is_file():
                raise FileNotFoundError(f"{tokenizer / 'tokenizer_config.json'} does not exist")
            for name in JUDGE_FILES:
                if (tokenizer / name).is_file():
                    shutil.copy(tokenizer / name, draft / name)
        else:
            tokenizer.save_pretrained(draft)
        write_json(draft / "preprocessor_config.json", preprocessor)


def preprocessor_config(
    vision_config: Mapping[str, Any], *, min_pixels: int, max_pixels: int
) -> dict[str, Any]:
    """The preprocessor_config.json for a vision tower.

    Args:
      vision_config: `vision_config` of the judge's config.json.
      min_pixels, max_pixels: images are resized to an area in this range.
    """
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "patch_size": vision_config["patch_size"],
        "temporal_patch_size": vision_config["temporal_patch_size"],
        "merge_size": vision_config["spatial_merge_size"],
        "min_pixels": min_pixels,
        "max_pixels": max_pixels,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
    }


def read_preprocessor(folder: str | Path) -> dict[str, Any]:
    """Reads the image preprocessing of a judge folder: the fields of `preprocessor_config`.

    transformers 5 writes it into processor_config.json, and prefers it to a file of its own.

    Raises:
      FileNotFoundError: neither file exists.
      ValueError: not a JSON object.
    """
    folder = Path(folder)
    path = folder / "processor_config.json"
    found = read_json(path).get("image_processor") if path.is_file() else None
    if found is None:
        return read_json(folder / "preprocessor_config.json")
    if not isinstance(found, dict):
        raise ValueError(f"{path}: image_processor is {shown(found)}, not a JSON object")
    return found


def _copy_folder(source: Path, target: Path) -> None:
    """Copies a component folder; symbolic links, as in the hub's cache, become files."""
    if not source.is_dir():
        raise FileNotFoundError(f"component folder {source} does not exist")
    if is_writer():
        shutil.copytree(source, target)
