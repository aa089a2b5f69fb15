"""T5's encoder: token-wise prompt embeddings."""

from onereward_jax.models.t5.config import T5Config
from onereward_jax.models.t5.model import T5Encoder

__all__ = ["T5Config", "T5Encoder"]
