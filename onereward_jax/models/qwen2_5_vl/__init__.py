"""Qwen2.5-VL, the vision-language model used as judge."""

from onereward_jax.models.qwen2_5_vl.config import (
    Grid,
    Qwen2_5_VLConfig,
    TextConfig,
    VisionConfig,
)
from onereward_jax.models.qwen2_5_vl.model import Qwen2_5_VL, init_params, place_images
from onereward_jax.models.qwen2_5_vl.positions import image_position_ids

__all__ = [
    "Grid",
    "Qwen2_5_VL",
    "Qwen2_5_VLConfig",
    "TextConfig",
    "VisionConfig",
    "image_position_ids",
    "init_params",
    "place_images",
]
