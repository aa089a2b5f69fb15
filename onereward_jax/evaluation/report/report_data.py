"""Inputs of a report, as frozen dataclasses."""

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
from onereward_jax.evaluation.judge_calibration import (
    AgreedShare,
    Calibration,
    LabelPoint,
    Share,
)
from onereward_jax.evaluation.policy_against_base import RightOnPolicy
from onereward_jax.evaluation.usability import Usability
from onereward_jax.tasks import Dimension, Task


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """A quantity over training steps; NaN where it was not measured."""

    steps: Num[np.ndarray, " n"]
    values: Num[np.ndarray, " n"]

    def smoothed(self, window: int) -> Curve:
        """Centred moving mean over `window` measured points; the window shrinks at both ends."""
        known = np.isfinite(self.values)
        steps, values = self.steps[known], self.values[known].astype(np.float64)
        kernel = np.ones(max(1, min(window, len(values))))
        if not len(values):
            return Curve(steps, values)
        total = np.convolve(values, kernel, "same")
        return Curve(steps, total / np.convolve(np.ones_like(values), kernel, "same"))


@dataclasses.dataclass(frozen=True, eq=False)
class GridRow:
    """A held-out triplet and the results of two editors, as uint8 images of one size.

    `truth` is None if the triplet has no target.
    """

    caption: str
    source: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]
    base: UInt8[np.ndarray, "h w 3"]
    policy: UInt8[np.ndarray, "h w 3"]
    truth: UInt8[np.ndarray, "h w 3"] | None = None


@dataclasses.dataclass(frozen=True)
class Agreed:
    """Agreement of `annotators` on `triplets` answered by several of them.

    `rate` in [0, 1]: share of equal answers. `alpha`: Krippendorff's alpha, 1 if all agree, 0 at
    chance, None if undefined. `alone`: one annotator's accuracy against the majority of the others.
    """

    annotators: int
    triplets: int
    rate: float
    alpha: float | None
    alone: Share | None = None


@dataclasses.dataclass(frozen=True)
class JudgeTrust:
    """What is known about the judge besides its accuracy; see `evaluation.judge_calibration`.

    Attributes:
      calibration: None if it was not measured.
      by_agreement: accuracy by how many annotators agree, if there are several.
      by_labels: accuracy by the number of training pairs, if the stage `label_curve` ran.
    """

    calibration: Calibration | None = None
    by_agreement: Sequence[AgreedShare] = ()
    by_labels: Sequence[LabelPoint] = ()


@dataclasses.dataclass(frozen=True)
class ByPeople:
    """What people say in blinded questions.

    Attributes:
      gsb: editor -> (task, dimension or "overall") -> its results against the base's.
      usable: editor -> task -> usability of its results (Table 2).
    """

    gsb: Mapping[str, Mapping[tuple[Task, str], GoodSameBad]]
    usable: Mapping[str, Mapping[Task, Usability]]


@dataclasses.dataclass(frozen=True)
class RoundRow:
    """A round's judge on held-out pairs.

    Attributes:
      round: its number.
      pairs: number of held-out pairs, of this round and those before.
      accuracy: the judge's on them, in [0, 1], the mean over tasks and dimensions.
      on_policy: on pairs of the base and the policy of the round before; None in round 1.
    """

    round: int
    pairs: int
    accuracy: float
    on_policy: RightOnPolicy | None = None


@dataclasses.dataclass(frozen=True)
class ReportInputs:
    """Inputs of a report. An empty mapping omits its section.

    Attributes:
      title: heading of the page.
      rewards: P(Yes | policy, reference, q) over RL steps, Figure 6.
      gsb: name of a comparison ("by the oracle") -> results per task, Figure 7.
      gains: the comparison per task and dimension.
      judge: held-out accuracy, Table 1.
      monitors: other curves (saturation, edge density, drift, zero-gradient share, ...).
      metrics: editor -> task -> means over held-out triplets.
      grids: images per task.
      settings: the config; JSON values, mappings may be nested.
      about: text on what was compared, when, and with which settings.
      triplets: task -> (triplets requested, triplets found).
      agreement: between annotators, if there are several.
      trust: calibration and more of the judge.
      people: their answers to blinded questions; None if there are none.
      on_policy: "<judge>, <rater>" -> the judge's accuracy on pairs of policy and base.
      conflicts: title of a panel -> pair -> cosine of its gradients over RL steps.
      rounds: the judges of all rounds; () for a run of one.
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
    trust: JudgeTrust = JudgeTrust()
    people: ByPeople | None = None
    on_policy: Mapping[str, Mapping[tuple[Task, Dimension], RightOnPolicy]] = dataclasses.field(
        default_factory=dict
    )
    conflicts: Mapping[str, Mapping[str, Curve]] = dataclasses.field(default_factory=dict)
    rounds: Sequence[RoundRow] = ()
