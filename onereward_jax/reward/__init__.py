"""The reward model: query Φ, differentiable image preprocessing, scorer for P("Yes")."""

from onereward_jax.reward.image_preprocess import ImageProcessor
from onereward_jax.reward.jitter import Jitter, jitter_pairs, jitter_source
from onereward_jax.reward.judge_view import WHOLE, JudgeView
from onereward_jax.reward.query import QueryBatch, QueryLayout, QueryTokenizer, queries_in
from onereward_jax.reward.query_template import (
    TEMPLATE_VERSION,
    QueryTemplate,
    packaged_scalar_template,
    packaged_template,
    read_template,
)
from onereward_jax.reward.reward_interface import PairScorer, Questions, Reward
from onereward_jax.reward.scorer import Scorer

__all__ = [
    "TEMPLATE_VERSION",
    "WHOLE",
    "ImageProcessor",
    "Jitter",
    "JudgeView",
    "PairScorer",
    "QueryBatch",
    "QueryLayout",
    "QueryTemplate",
    "QueryTokenizer",
    "Questions",
    "Reward",
    "Scorer",
    "jitter_pairs",
    "jitter_source",
    "packaged_template",
    "packaged_scalar_template",
    "queries_in",
    "read_template",
]
