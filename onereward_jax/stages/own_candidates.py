"""The run's own candidates among labelled pairs, of all rounds."""

from __future__ import annotations

import re

from onereward_jax.annotation.labelled_pairs import LabelledPair
from onereward_jax.chain.stage import StageContext

OWN = "candidates"
"""`LabelledPair.folder` of pairs of the run's own candidates in round 1; then "candidates-2"."""


def is_own(pair: LabelledPair) -> bool:
    """Whether a pair is of the run's own candidates, of any round."""
    return re.fullmatch(rf"{OWN}(-[0-9]+)?", pair.folder) is not None


def rounds_so_far(context: StageContext) -> range:
    """The rounds whose answers there are."""
    return range(1, context.round + 1)
