"""The reward model: query Φ, differentiable image preprocessing, scorer of P("Yes")."""

from onereward_jax.reward.jitter import Jitter, jitter_pairs
from onereward_jax.reward.preprocess import ImageProcessor
from onereward_jax.reward.query import (
    TEMPLATE_VERSION,
    QueryBatch,
    QueryLayout,
    QueryTokenizer,
    check_template_version,
    template_texts,
)
from onereward_jax.reward.scorer import Scorer

__all__ = [
    "TEMPLATE_VERSION",
    "ImageProcessor",
    "Jitter",
    "QueryBatch",
    "QueryLayout",
    "QueryTokenizer",
    "Scorer",
    "check_template_version",
    "jitter_pairs",
    "template_texts",
]
