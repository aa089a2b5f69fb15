"""CLIP's text tower: token-wise and pooled prompt embeddings."""

from onereward_jax.models.clip.config import ClipTextConfig
from onereward_jax.models.clip.model import ClipTextModel

__all__ = ["ClipTextConfig", "ClipTextModel"]
