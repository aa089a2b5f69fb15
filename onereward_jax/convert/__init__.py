"""Hugging Face folders <-> Flax parameters: one layout per model, strict both ways."""

from onereward_jax.convert.hub import hub_commit, resolve_adapter, resolve_folder, resolve_weights
from onereward_jax.convert.layouts import (
    CLIP,
    CLIP_BOTH,
    CLIP_BOTH_TEXT,
    CLIP_VISION,
    FLUX,
    QWEN2_5_VL,
    T5,
    VAE,
    Layout,
)
from onereward_jax.convert.load import load_params
from onereward_jax.convert.lora_files import is_adapter, load_adapter
from onereward_jax.convert.lora_targets import abstract_adapter, find_targets, init_adapter
from onereward_jax.convert.lora_writer import save_adapter, save_adapter_file, save_peft_adapter
from onereward_jax.convert.model_folders import (
    CLIP_MEAN,
    CLIP_STD,
    EDITING,
    Weights,
    preprocessor_config,
    read_preprocessor,
    write_editor_folder,
    write_judge_folder,
)
from onereward_jax.convert.model_index import check_fill_pipeline, component_config
from onereward_jax.convert.safetensors_reader import read_config
from onereward_jax.convert.save import save_params
from onereward_jax.convert.single_file import read_single_file
from onereward_jax.convert.single_file_config import single_file_config
from onereward_jax.convert.tokenizers import (
    EditorTokenizers,
    Tokenizer,
    load_tokenizer,
    load_tokenizers,
)

__all__ = [
    "CLIP",
    "CLIP_BOTH",
    "CLIP_BOTH_TEXT",
    "CLIP_MEAN",
    "CLIP_STD",
    "CLIP_VISION",
    "EDITING",
    "FLUX",
    "QWEN2_5_VL",
    "T5",
    "VAE",
    "EditorTokenizers",
    "Layout",
    "Tokenizer",
    "Weights",
    "abstract_adapter",
    "check_fill_pipeline",
    "component_config",
    "find_targets",
    "hub_commit",
    "init_adapter",
    "is_adapter",
    "load_adapter",
    "load_params",
    "load_tokenizer",
    "load_tokenizers",
    "preprocessor_config",
    "read_config",
    "read_preprocessor",
    "read_single_file",
    "resolve_adapter",
    "resolve_folder",
    "resolve_weights",
    "save_adapter",
    "save_adapter_file",
    "save_peft_adapter",
    "save_params",
    "single_file_config",
    "write_editor_folder",
    "write_judge_folder",
]
