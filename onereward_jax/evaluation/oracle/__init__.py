"""The oracle annotator: scores results of the mini world from the truth of its scenes."""

from onereward_jax.evaluation.oracle.annotator import (
    DEFAULT_MARGIN,
    VERDICT_THRESHOLD,
    annotate,
    verdict,
)
from onereward_jax.evaluation.oracle.oracle import Oracle
from onereward_jax.evaluation.oracle.reading import WordReader
from onereward_jax.evaluation.oracle.triplet import Triplet

__all__ = [
    "DEFAULT_MARGIN",
    "VERDICT_THRESHOLD",
    "Oracle",
    "Triplet",
    "WordReader",
    "annotate",
    "verdict",
]
