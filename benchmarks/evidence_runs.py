"""Trains a run of the grid in a work folder that shares stages with the other runs.

Two runs share a stage when all of its inputs are equal, as the chain compares them: then the later
run's folder links to the earlier run's. What a run makes is never written through such a link: the
chain skips a complete and unchanged stage.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import FrozenConfigDict

from onereward_jax.chain.stage_record import COMPLETE, read_record
from onereward_jax.chain.staleness import Action, compare, identity, reads_of, stage_inputs
from onereward_jax.common.user_errors import TRY_AGAIN, Stopped
from onereward_jax.stages.registry import STAGES

TRAINED = ("data", "embed", "candidates", "annotate", "reward", "rl")
"""Stages of a run; what follows is measured by `evidence_compare`."""


class RunFailed(Exception):
    """A run ended with an error, which it has printed."""


def train(
    config: FrozenConfigDict, command: Sequence[str], folder: Path, others: Sequence[Path]
) -> None:
    """Runs the chain in `folder`, with links to equal stages of other work folders.

    Args:
      config: the run's config.
      command: the same as flags, for `python -m onereward_jax.main`.
      folder: work folder, made if missing.
      others: work folders to link to.

    Raises:
      RunFailed: it ended with an error.
      Stopped: it was asked to stop.
    """
    folder.mkdir(parents=True, exist_ok=True)
    link_stages(config, folder, others)
    flags = [f"--workdir={folder}", *command, f"--config.stages={TRAINED!r}"]
    ended = subprocess.run([sys.executable, "-m", "onereward_jax.main", *flags], check=False)
    if ended.returncode == TRY_AGAIN:
        raise Stopped(f"stopped in {folder.name}: the same command goes on there")
    if ended.returncode:
        raise RunFailed(f"{folder.name} ended with code {ended.returncode}: see above")


def link_stages(config: FrozenConfigDict, folder: Path, others: Sequence[Path]) -> list[str]:
    """Links stages that another run has from the same inputs; returns the names of new links.

    A stage is linked only after all those that it reads, and never in place of a folder. A link to
    what no longer fits is removed.
    """
    table = {stage.name: stage for stage in STAGES}
    known: dict[str, dict[str, Any]] = {}

    def inputs(name: str) -> dict[str, Any]:
        if name not in known:
            stage = table[name]
            earlier = {
                one: identity(table[one], config, inputs(one))
                for one in reads_of(stage, config)
                if one in TRAINED
            }
            known[name] = stage_inputs(stage, config, folder, earlier)
        return known[name]

    def fits(made: Path) -> bool:
        record = read_record(made)
        if record is None or record.status != COMPLETE:
            return False
        found = compare(table[made.name], config, record.inputs, inputs(made.name))
        return found.action is Action.UNCHANGED

    linked = []
    for name in TRAINED:
        here = folder / name
        if here.is_symlink() and not fits(here):
            here.unlink()
        if not here.exists():
            made = (other / name for other in others if other != folder)
            found = next((one for one in made if not one.is_symlink() and fits(one)), None)
            if found is None:
                break
            here.symlink_to(os.path.relpath(found, folder))
            linked.append(name)
        if not fits(here):
            break
    return linked
