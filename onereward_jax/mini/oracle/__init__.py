"""The oracle annotator: scores results of the mini world from the truth of its scenes."""

from onereward_jax.mini.oracle.annotator import (
    DEFAULT_MARGIN,
    VERDICT_THRESHOLD,
    annotate,
    verdict,
)
from onereward_jax.mini.oracle.oracle import Oracle
from onereward_jax.mini.oracle.reading import WordReader
from onereward_jax.mini.oracle.triplet import Triplet

__all__ = [
    "DEFAULT_MARGIN",
    "VERDICT_THRESHOLD",
    "Oracle",
    "Triplet",
    "WordReader",
    "annotate",
    "verdict",
]
