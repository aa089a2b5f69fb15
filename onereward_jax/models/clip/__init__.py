"""CLIP's towers: embeddings of prompts, token-wise and pooled, and of pictures."""

from onereward_jax.models.clip.config import ClipTextConfig, ClipVisionConfig
from onereward_jax.models.clip.model import ClipTextModel
from onereward_jax.models.clip.text_projection import ClipTextProjection
from onereward_jax.models.clip.vision import ClipVisionModel

__all__ = [
    "ClipTextConfig",
    "ClipTextModel",
    "ClipTextProjection",
    "ClipVisionConfig",
    "ClipVisionModel",
]
