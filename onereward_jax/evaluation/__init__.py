"""Evaluation: Good/Same/Bad, judge accuracy, image metrics, reports."""

from onereward_jax.evaluation.gsb import Comparison, GoodSameBad, Verdict, good_same_bad
from onereward_jax.evaluation.image_metrics import ImageMetrics, mean_metrics, measure
from onereward_jax.evaluation.judge_accuracy import (
    PAPER_ACCURACY,
    JudgeAccuracy,
    judge_accuracy,
    judge_accuracy_table,
)

__all__ = [
    "PAPER_ACCURACY",
    "Comparison",
    "GoodSameBad",
    "ImageMetrics",
    "JudgeAccuracy",
    "Verdict",
    "good_same_bad",
    "judge_accuracy",
    "judge_accuracy_table",
    "mean_metrics",
    "measure",
]
