"""Whether the flow-matching term of the stage `rl` has something to match."""

from __future__ import annotations

import contextlib

from onereward_jax.chain.stage import StageContext
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel.progress import announce
from onereward_jax.stages.data import folder_rows, open_triplets


def check_targets_ahead(context: StageContext) -> None:
    """As `check_targets`, as far as can be known before the stage `data` has run.

    Does nothing where a folder's rows are not at hand: only the stage `data` needs them.
    """
    if not context.config.rl.flow_matching_weight:
        return
    known, source = True, context.config.data.source
    if source == "tfds":
        known = open_triplets(context, "train").has_target.any()
    elif source == "folder":
        with contextlib.suppress(FileNotFoundError):
            rows = folder_rows(context.config)
            known = any(row.target is not None and row.split != "test" for row in rows)
    if not known:
        raise no_target(context)


def check_targets(context: StageContext, triplets: Triplets) -> None:
    """Says how many triplets to learn from have a target, where not all have one.

    Does nothing where `config.rl.flow_matching_weight` is 0.

    Raises:
      ValueError: none has one.
    """
    if not context.config.rl.flow_matching_weight:
        return
    known = int(triplets.has_target.sum())
    if not known:
        raise no_target(context)
    if known < len(triplets):
        announce(
            f"rl: the flow-matching term learns from the {known} of {len(triplets)} training "
            "triplets that have a target"
        )


def no_target(context: StageContext) -> ValueError:
    """What to say where no triplet to learn from has a target."""
    return ValueError(
        f"config.rl.flow_matching_weight is {context.config.rl.flow_matching_weight}, but no "
        'training triplet has a target: set it to 0, or name pictures of perfect edits in "target" '
        "of the rows of metadata.jsonl"
    )
