"""Whether the flow-matching term of the stage `rl` has something to match."""

from __future__ import annotations

from onereward_jax.data.triplets import Triplets
from onereward_jax.stages.progress import announce
from onereward_jax.stages.stage import StageContext


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
