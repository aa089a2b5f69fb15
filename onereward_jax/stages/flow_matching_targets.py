"""Checks that the flow-matching term of the stage `rl` has triplets with a target."""

from __future__ import annotations

import contextlib

from onereward_jax.chain.base_models import made_by
from onereward_jax.chain.stage import StageContext
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel.progress import announce
from onereward_jax.stages.data import folder_rows, open_triplets


def check_targets_ahead(context: StageContext) -> None:
    """Like `check_targets`, as far as possible before the stage `data` has run.

    Does nothing if a folder's rows are not available (only the stage `data` needs them), or are yet
    to be made by a stage.
    """
    if not context.config.rl.flow_matching_weight:
        return
    known, source = True, context.config.data.source
    if source == "tfds":
        known = open_triplets(context, "train").has_target.any()
    elif source == "folder" and not made_by(context.config, "data.path"):
        with contextlib.suppress(FileNotFoundError):
            rows = folder_rows(context)
            known = any(row.target is not None and row.split != "test" for row in rows)
    if not known:
        raise no_target(context)


def check_targets(context: StageContext, triplets: Triplets) -> None:
    """Announces how many training triplets have a target, if not all of them.

    Does nothing if `config.rl.flow_matching_weight` is 0.

    Raises:
      ValueError: no training triplet has a target.
    """
    if not context.config.rl.flow_matching_weight:
        return
    known = int(triplets.has_target.sum())
    if not known:
        raise no_target(context)
    if known < len(triplets):
        announce(
            f"rl: the flow-matching term uses the {known} of {len(triplets)} training "
            "triplets that have a target"
        )


def no_target(context: StageContext) -> ValueError:
    """The error if no training triplet has a target."""
    return ValueError(
        f"config.rl.flow_matching_weight is {context.config.rl.flow_matching_weight}, but no "
        'training triplet has a target: set it to 0, or set "target" (the ground truth) in rows of '
        "the data"
    )
