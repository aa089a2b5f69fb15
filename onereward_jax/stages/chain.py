"""Running stages in order: skip what is complete, resume what was interrupted, lose nothing."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import shutil
import time
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

import onereward_jax
from onereward_jax.common.config import flatten_config
from onereward_jax.parallel import is_writer, wait_for_all
from onereward_jax.parallel.hosts import stop_requested
from onereward_jax.stages.progress import announce
from onereward_jax.stages.record import (
    COMPLETE,
    FILE,
    STARTED,
    StageRecord,
    changes,
    read_record,
    write_record,
)
from onereward_jax.stages.stage import Stage, StageContext
from onereward_jax.training.loop import Stopped


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one stage: its record, and whether it ran now or had nothing to do."""

    stage: str
    ran: bool
    record: StageRecord


def run_chain(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    mesh: Mesh,
    stages: Sequence[Stage],
    only: str | None = None,
) -> list[Outcome]:
    """Run the stages named in `config.stages`, or only one of them.

    A stage is skipped when it is complete and none of its inputs changed (its config sections,
    the seed, the package version, the very outputs it read). Output made from other inputs is
    moved aside, not deleted. Every process of a multi-process run calls this; they share
    `workdir`, and what a stage returns on process 0 counts.

    Args:
      config: the experiment.
      workdir: the folder of the run; each stage writes into the sub-folder of its name.
      mesh: devices, passed on to the stages.
      stages: all stages there are, in order.
      only: run this stage alone; those it reads must be complete.

    Raises:
      ValueError: an unknown stage, a missing config section, or (with `only`) an earlier stage
        that is not complete.
      Stopped: by SIGTERM to one of several processes.
      Lost: another process is missing or has failed.
    """
    table = {stage.name: stage for stage in stages}
    for name in (*config.stages, *([only] if only else [])):
        if name not in table:
            raise ValueError(f"config.stages: no stage {name!r}; there are {', '.join(table)}")
    chain = _Chain(FrozenConfigDict(config), pathlib.Path(workdir), mesh, table)
    chosen = (only,) if only else config.stages
    return [chain.run(stage) for stage in stages if stage.name in chosen]


@dataclasses.dataclass(frozen=True)
class _Chain:
    """What stays the same from stage to stage of one run."""

    config: FrozenConfigDict
    workdir: pathlib.Path
    mesh: Mesh
    table: dict[str, Stage]

    def upstream(self, stage: Stage) -> list[Stage]:
        """The stages of this config that `stage` reads."""
        return [self.table[name] for name in stage.reads if name in self.config.stages]

    def record(self, stage: Stage) -> StageRecord | None:
        """What `stage.json` says at the moment."""
        return read_record(self.workdir / stage.name)

    def inputs(self, stage: Stage) -> dict[str, Any]:
        """Every value the output of `stage` depends on, by its dotted name.

        An earlier stage counts by the time it was completed: people who annotate again with the
        same settings still make new labels.
        """
        inputs = {"onereward_jax": onereward_jax.__version__, "config.seed": self.config.seed}
        inputs |= {f"version.{name}": version for name, version in stage.versions.items()}
        for section in stage.sections:
            if section not in self.config:
                raise ValueError(f"config.{section} is missing: stage {stage.name} needs it")
            inputs |= flatten_config(self.config[section], f"config.{section}")
        for earlier in self.upstream(stage):
            record = self.record(earlier)
            inputs[f"stage.{earlier.name}"] = record.finished if record else ""
        # Through JSON, since tuples come back from `stage.json` as lists.
        return json.loads(json.dumps(inputs))

    def require_upstream(self, stage: Stage) -> None:
        """Raise a ValueError unless all that `stage` reads, however indirectly, is up to date."""
        for earlier in self.upstream(stage):
            advice = f"run --stage={earlier.name} first, or leave --stage out"
            record = self.record(earlier)
            if record is None or record.status != COMPLETE:
                raise ValueError(
                    f"stage {stage.name} reads {earlier.name}, which is not done: {advice}"
                )
            if changed := changes(record.inputs, self.inputs(earlier)):
                raise ValueError(
                    f"stage {stage.name} reads {earlier.name}, which was made from other inputs "
                    f"({changed}): {advice}"
                )
            self.require_upstream(earlier)

    def run(self, stage: Stage) -> Outcome:
        """Run one stage unless there is nothing to do."""
        self.require_upstream(stage)
        inputs = self.inputs(stage)
        folder = self.workdir / stage.name
        record = self.record(stage)
        if record and record.status == COMPLETE and not changes(record.inputs, inputs):
            announce(f"{stage.name}: complete and unchanged; remove {folder} to run it again")
            return Outcome(stage.name, False, record)
        if stop_requested():
            raise Stopped(f"stopped before {stage.name}, as asked; the same command goes on there")
        # No process may touch the folder before all have read it.
        wait_for_all(f"decision on {stage.name}")
        if is_writer():
            _prepare_folder(stage, folder, record, inputs)
        wait_for_all(f"start of {stage.name}")
        start, results = time.monotonic(), None
        if is_writer() or not stage.alone:
            results = stage.run(StageContext(stage.name, self.config, self.workdir, self.mesh))
        # However long the writer may take: a dead one is noticed by the runtime.
        wait_for_all(f"end of {stage.name}", seconds=None)
        record = StageRecord(
            status=COMPLETE,
            inputs=inputs,
            finished=datetime.datetime.now(datetime.UTC).isoformat(),
            seconds=round(time.monotonic() - start, 1),
            results=dict(results or {}),
        )
        if is_writer():
            write_record(folder, record)
        wait_for_all(f"record of {stage.name}")
        announce(f"{stage.name}: done in {record.seconds:.0f} s")
        return Outcome(stage.name, True, record)


def _prepare_folder(
    stage: Stage, folder: pathlib.Path, record: StageRecord | None, inputs: dict[str, Any]
) -> None:
    """Leave in `folder` only what the stage may go on from, and mark it as started."""
    same = record is not None and not changes(record.inputs, inputs)
    has_output = folder.exists() and any(entry.name != FILE for entry in folder.iterdir())
    if has_output and not same:
        kept = _set_aside(folder)
        why = changes(record.inputs, inputs) if record else f"it has no {FILE}"
        announce(f"{stage.name}: former output moved to {kept} ({why})")
    elif has_output and not stage.resumes:
        shutil.rmtree(folder)
    resumed = has_output and same and stage.resumes
    announce(f"{stage.name}: {'resuming' if resumed else 'starting'}")
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder, StageRecord(STARTED, inputs))


def _set_aside(folder: pathlib.Path) -> pathlib.Path:
    number = 1
    while (kept := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    return folder.rename(kept)
