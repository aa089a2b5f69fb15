"""The reward model: query Φ, differentiable image preprocessing, scorer of P("Yes")."""

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
    "QueryBatch",
    "QueryLayout",
    "QueryTokenizer",
    "Scorer",
    "check_template_version",
    "template_texts",
]
