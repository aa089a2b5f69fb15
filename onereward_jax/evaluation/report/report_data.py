"""Everything a report shows, as plain frozen data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Num, UInt8

from onereward_jax.evaluation.gains_by_dimension import Gain
from onereward_jax.evaluation.gsb import GoodSameBad
from onereward_jax.evaluation.image_metrics import ImageMetrics
from onereward_jax.evaluation.judge_accuracy import JudgeAccuracy
from onereward_jax.tasks import Dimension, Task


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """A quantity over training steps. NaN marks a step at which it was not measured."""

    steps: Num[np.ndarray, " n"]
    values: Num[np.ndarray, " n"]

    def smoothed(self, window: int) -> Curve:
        """Centred moving mean over `window` measured points; shorter at both ends."""
        known = np.isfinite(self.values)
        steps, values = self.steps[known], self.values[known].astype(np.float64)
        kernel = np.ones(max(1, min(window, len(values))))
        if not len(values):
            return Curve(steps, values)
        total = np.convolve(values, kernel, "same")
        return Curve(steps, total / np.convolve(np.ones_like(values), kernel, "same"))


@dataclasses.dataclass(frozen=True, eq=False)
class GridRow:
    """One held-out triplet and what two editors made of it, as uint8 pictures of one size.

    `truth` is None where it is not known.
    """

    caption: str
    source: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]
    base: UInt8[np.ndarray, "h w 3"]
    policy: UInt8[np.ndarray, "h w 3"]
    truth: UInt8[np.ndarray, "h w 3"] | None = None


@dataclasses.dataclass(frozen=True)
class Agreed:
    """How far `annotators` agree on `triplets` that several of them answered.

    `rate` in [0, 1]: share of equal answers; `kappa` in [-1, 1]: Fleiss', 0 = chance, None where it
    is undefined.
    """

    annotators: int
    triplets: int
    rate: float
    kappa: float | None


@dataclasses.dataclass(frozen=True)
class ReportInputs:
    """What to report; an empty mapping leaves its section out.

    `rewards`: P(Yes | policy, reference, q) over RL steps, Figure 6. `gsb`: per named comparison
    ("by the oracle"), Figure 7. `gains`: the same comparison dimension by dimension. `judge`:
    held-out accuracy, Table 1. `monitors`: named curves beside the reward (saturation, edge
    density, drift, zero-gradient share, ...). `metrics`: per editor and task, means over held-out
    triplets. `grids`: pictures per task. `settings`: the run's configuration, nested mappings
    allowed, JSON values. `about`: what was compared, when, from which settings, in words.
    `triplets`: per task how many triplets were asked for and how many there are. `agreement`:
    between annotators, where there were several.
    """

    title: str
    rewards: Mapping[tuple[Task, Dimension], Curve]
    gsb: Mapping[str, Mapping[Task, GoodSameBad]]
    gains: Mapping[tuple[Task, Dimension], Gain]
    judge: Mapping[tuple[Task, Dimension], JudgeAccuracy]
    monitors: Mapping[str, Curve]
    metrics: Mapping[str, Mapping[Task, ImageMetrics]]
    grids: Mapping[Task, Sequence[GridRow]]
    settings: Mapping[str, Any]
    about: Mapping[str, str] = dataclasses.field(default_factory=dict)
    triplets: Mapping[Task, tuple[int, int]] = dataclasses.field(default_factory=dict)
    agreement: Mapping[tuple[Task, Dimension], Agreed] = dataclasses.field(default_factory=dict)
