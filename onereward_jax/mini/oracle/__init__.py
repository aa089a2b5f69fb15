"""The oracle: scores results of the mini world from the truth of its scenes."""

from onereward_jax.mini.oracle.answers_by_scores import annotate
from onereward_jax.mini.oracle.evaluation_oracle import FIELDS, check, make_oracle
from onereward_jax.mini.oracle.reading import WordReader
from onereward_jax.mini.oracle.scene_oracle import VERSION, SceneOracle
from onereward_jax.mini.oracle.triplet import SceneTruth

__all__ = [
    "FIELDS",
    "VERSION",
    "SceneOracle",
    "SceneTruth",
    "WordReader",
    "annotate",
    "check",
    "make_oracle",
]
