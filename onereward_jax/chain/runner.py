"""Runs stages in order: skips complete ones, resumes interrupted ones, deletes no output."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from onereward_jax.chain.fingerprints import CACHES
from onereward_jax.chain.output_folders import OutputFolders, open_workdir
from onereward_jax.chain.preflight import check_config, check_stages
from onereward_jax.chain.saved_command import FILE as COMMAND
from onereward_jax.chain.saved_command import Command, write_command
from onereward_jax.chain.stage import InputsChanged, Stage, StageContext
from onereward_jax.chain.stage_record import (
    COMPLETE,
    FILE,
    STARTED,
    StageRecord,
    read_record,
)
from onereward_jax.chain.staleness import (
    Action,
    Change,
    Effect,
    compare,
    identity,
    input_effects,
    reads_of,
    require_sections,
    stage_inputs,
)
from onereward_jax.chain.workdir_lock import WorkdirLock
from onereward_jax.common.user_errors import Stopped
from onereward_jax.parallel import barrier, is_writer
from onereward_jax.parallel.distributed import broadcast_from_writer
from onereward_jax.parallel.preemption import now_at, stop_requested
from onereward_jax.parallel.progress import announce


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a stage: its record, and whether it ran or was up to date."""

    stage: str
    ran: bool
    record: StageRecord


def run_chain(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    mesh: Mesh,
    stages: Sequence[Stage],
    only: str | None = None,
    command: Command | None = None,
) -> list[Outcome]:
    """Runs the stages named in `config.stages`, or a single one.

    A stage is skipped if it is complete and none of the inputs of its output has changed
    (`staleness`). Output made from other inputs is moved aside, not deleted, and restored if those
    inputs return. Everything that can be checked is checked before the first stage. All processes
    of a multi-process run call this; they share `workdir`, process 0 decides for all, and its
    results of a stage count.

    Args:
      config: the experiment.
      workdir: the folder of the run; each stage writes to the sub-folder of its name. Locked by one
        run at a time.
      mesh: the device mesh, passed to the stages.
      stages: all known stages, in order.
      only: run only this stage; those it reads must be complete.
      command: the flags, saved for `--resume` and to report unused ones.

    Raises:
      ValueError: an unknown stage, a missing config section, a field out of range or unused, a
        failed check of a stage, a work folder in use, or (with `only`) an incomplete earlier stage.
      Stopped: after a signal, see `parallel.preemption`.
      PeerLost: another process is missing or failed.
    """
    table = {stage.name: stage for stage in stages}
    for name in (*config.stages, *([only] if only else [])):
        if name not in table:
            raise ValueError(f"config.stages: no stage {name!r}; there are {', '.join(table)}")
    folders = open_workdir(workdir)
    chain = _Chain(FrozenConfigDict(config), folders, mesh, table, command)
    chosen = [stage for stage in stages if stage.name in ((only,) if only else config.stages)]
    with contextlib.ExitStack() as held:
        if folders.copy is not None:  # lock first: another run may change the bucket
            held.enter_context(chain.held())
            folders.fetch_heads()
        broadcast_from_writer(lambda: chain.prepare(chosen))
        if folders.copy is None:
            held.enter_context(chain.held())
        outcomes = [chain.run(stage) for stage in chosen]
        if only and is_writer():
            chain.name_outdated(chosen[0])
    return outcomes


@dataclasses.dataclass(frozen=True)
class _Chain:
    """The constants of one run."""

    config: FrozenConfigDict
    folders: OutputFolders
    mesh: Mesh
    table: dict[str, Stage]
    command: Command | None

    @property
    def workdir(self) -> pathlib.Path:
        """The work folder, on this host."""
        return self.folders.workdir

    def held(self) -> WorkdirLock | _Unheld:
        """The lock of the work folder on process 0; nothing on the others."""
        if not is_writer():
            return _Unheld()
        return WorkdirLock(self.folders.copy.bucket if self.folders.copy else self.workdir)

    def upstream(self, stage: Stage) -> list[Stage]:
        """The stages of this config that `stage` reads."""
        return [self.table[name] for name in self.reads(stage) if name in self.config.stages]

    def reads(self, stage: Stage) -> list[str]:
        """The stages that `stage` reads, also those of other configs."""
        return list(reads_of(stage, stage.configured(self.config)))

    def identity(self, stage: Stage, inputs: Mapping[str, Any]) -> str:
        """See `staleness.identity`."""
        return identity(stage, stage.configured(self.config), inputs)

    def record(self, stage: Stage) -> StageRecord | None:
        """The current `stage.json` of a stage."""
        return self.folders.record(stage.name)

    def inputs(self, stage: Stage, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Every value that the output of `stage` depends on, once the stages it reads are current.

        Args:
          stage: the stage.
          known: cache of inputs by stage, so that no content is read twice.
        """
        if stage.name not in known:
            earlier = {
                one.name: self.identity(one, self.inputs(one, known))
                for one in self.upstream(stage)
            }
            config = stage.configured(self.config)
            known[stage.name] = stage_inputs(stage, config, self.workdir, earlier)
        return known[stage.name]

    def prepare(self, chosen: Sequence[Stage]) -> str:
        """On process 0, before anything is changed: runs all checks."""
        overrides = self.command.overrides if self.command else ()
        present = [self.table[name] for name in self.config.stages]
        for stage in chosen:
            require_sections(stage, self.config)
        check_config(self.config, [*present, *chosen], overrides)
        if remark := self.folders.check_mount():
            announce(remark)
        known: dict[str, dict[str, Any]] = {}
        for stage in chosen if len(chosen) == 1 else ():
            self.require_upstream(stage, known)
        running = [stage for stage in chosen if self.has_to_run(stage, known)]
        made = {stage.name for stage in chosen}
        for stage in running:
            self.folders.fetch_here(one for one in self.reads(stage) if one not in made)
        check_stages((stage, self.context(stage)) for stage in running)
        return ""

    def has_to_run(self, stage: Stage, known: dict[str, dict[str, Any]]) -> bool:
        """Whether a stage has no output, an incomplete one, or one from other inputs."""
        record = self.record(stage)
        return (
            record is None
            or record.status != COMPLETE
            or self.comparison(stage, record, self.inputs(stage, known)).action
            is not Action.UNCHANGED
        )

    def comparison(self, stage: Stage, record: StageRecord, inputs: Mapping[str, Any]) -> Change:
        """Compares the inputs of a record with the current ones."""
        return compare(stage, stage.configured(self.config), record.inputs, inputs)

    def context(self, stage: Stage, inputs: Mapping[str, Any] | None = None) -> StageContext:
        """The context of a stage."""
        config, fixed = stage.configured(self.config), {}
        if inputs is not None:
            effects = input_effects(stage, config)
            fixed = {k: value for k, value in inputs.items() if effects(k) is Effect.OUTPUT}
        return StageContext(
            stage.name,
            config,
            self.workdir,
            self.mesh,
            must_match=fixed,
            folders=self.folders,
            round=stage.round,
        )

    def require_upstream(self, stage: Stage, known: dict[str, dict[str, Any]]) -> None:
        """Raises ValueError unless all stages that `stage` depends on are up to date."""
        for earlier in self.upstream(stage):
            self.require_upstream(earlier, known)
            record = self.record(earlier)
            if record is None or record.status != COMPLETE:
                raise ValueError(
                    f"stage {stage.name} reads {earlier.name}, which is not complete: run "
                    f"--stage={earlier.name} first, or leave out --stage"
                )
            found = self.comparison(earlier, record, self.inputs(earlier, known))
            if found.action is Action.UNCHANGED:
                continue
            if found.only_settings:
                advice = (
                    "use the same flags as before (--resume instead of --config does that), or run "
                    f"--stage={earlier.name} with the new ones"
                )
            else:
                advice = f"run --stage={earlier.name} first, or leave out --stage"
            raise ValueError(
                f"stage {stage.name} reads {earlier.name}, which was made from other inputs "
                f"({found}): {advice}"
            )

    def run(self, stage: Stage) -> Outcome:
        """Runs one stage unless it is up to date."""
        folder = self.workdir / stage.name
        if stop_requested():
            raise Stopped(
                f"stopped before {stage.name}, as requested; run the same command to resume"
            )
        now_at(stage.name)
        inputs = json.loads(broadcast_from_writer(lambda: json.dumps(self.settle(stage))))
        if inputs is None:
            record = self.record(stage)
            where = self.folders.place(folder)
            announce(f"{stage.name}: complete and unchanged; remove {where} to rerun it")
            return Outcome(stage.name, False, record)
        start, results = time.monotonic(), None
        self.folders.fetch(self.reads(stage), stage.name, alone=stage.alone)
        context = self.context(stage, inputs)
        try:
            with self.folders.kept_up(stage.name, lambda: stage.before_publishing(context)):
                if is_writer() or not stage.alone:
                    results = stage.run(context)
                # No timeout: the runtime detects a dead process 0.
                barrier(f"end of {stage.name}", seconds=None)
        except InputsChanged:
            return self.run(stage)
        barrier(f"files of {stage.name}", seconds=None)
        record = StageRecord(
            status=COMPLETE,
            inputs=inputs,
            identity=self.identity(stage, inputs),
            finished=datetime.datetime.now(datetime.UTC).isoformat(),
            seconds=round(time.monotonic() - start, 1),
            results=dict(results or {}),
        )
        if is_writer():
            self.folders.declare(stage.name, record)
        barrier(f"record of {stage.name}")
        announce(f"{stage.name}: done in {record.seconds:.0f} s")
        return Outcome(stage.name, True, record)

    def settle(self, stage: Stage) -> dict[str, Any] | None:
        """On process 0: prepares the stage's folder, keeping only output it can resume from.

        Returns:
          The stage's inputs, or None if it is complete and unchanged.
        """
        self.folders.fetch_heads_here()  # there may be new answers
        known: dict[str, dict[str, Any]] = {}
        self.require_upstream(stage, known)
        inputs = self.inputs(stage, known)
        record = self.record(stage)
        found = self.comparison(stage, record, inputs) if record else None
        starts_over = found is None or found.action is Action.STARTS_OVER
        former = None
        if starts_over or found.action is Action.GOES_ON:
            # Prefer output that is already complete to resuming.
            former = self.former_output(stage, inputs, complete=not starts_over)
        if starts_over or former:
            if self.folders.has_output(stage.name) or (record and record.status == COMPLETE):
                kept = self.folders.set_aside(stage.name)
                why = str(found) if found else f"it has no {FILE}"
                announce(f"{stage.name}: old output moved to {kept} ({why})")
            else:
                self.folders.remove(stage.name)
            if former:
                self.folders.take_back(former, stage.name)
                record = self.record(stage)
                found = self.comparison(stage, record, inputs)
                why = "to resume from" if found.differing else "it was made from these inputs"
                announce(f"{stage.name}: {self.folders.place(former)} is restored: {why}")
        unchanged = found is not None and found.action is Action.UNCHANGED
        if unchanged and record is not None and record.status == COMPLETE:
            return None
        kept_output = found is not None and found.action is not Action.STARTS_OVER
        if kept_output and not stage.resumes:
            self.folders.remove(stage.name)
        resuming = kept_output and stage.resumes and self.folders.has_output(stage.name)
        changed = f" ({found})" if kept_output and found.differing else ""
        announce(f"{stage.name}: {'resuming' if resuming else 'starting'}{changed}")
        self.folders.declare(stage.name, StageRecord(STARTED, inputs))
        if self.command is not None:
            write_command(self.workdir, self.command)
        for name in (COMMAND, *CACHES):
            self.folders.publish_file(name)
        return inputs

    def former_output(
        self, stage: Stage, inputs: Mapping[str, Any], *, complete: bool
    ) -> pathlib.Path | None:
        """Output that was moved aside and was made from these inputs, or can be resumed with them.

        Args:
          stage, inputs: the stage and its current inputs.
          complete: accept only complete output of exactly these inputs; always preferred.
        """
        found = []
        for folder in self.workdir.glob(f"{stage.name}.old-*"):
            try:
                record = read_record(folder)
            except ValueError:  # damaged: ignore it
                continue
            if record is None:
                continue
            action = self.comparison(stage, record, inputs).action
            same, finished = action is Action.UNCHANGED, record.status == COMPLETE
            goes_on = stage.resumes and not complete and action is not Action.STARTS_OVER
            if (same and finished) or goes_on:
                found.append((same, finished, record.finished, folder))
        return max(found)[3] if found else None

    def name_outdated(self, stage: Stage) -> None:
        """Announces which later stages were made from older output of `stage`."""
        outdated = []
        for later in self.table.values():
            record = self.record(later) if later.name in self.config.stages else None
            if record is None or record.status != COMPLETE:
                continue
            before = record.inputs.get(f"stage.{stage.name}")
            if before is not None and before != self.record(stage).identity:
                outdated.append(later.name)
        if outdated:
            verb = "is" if len(outdated) == 1 else "are"
            announce(
                f"{', '.join(outdated)} {verb} outdated, made from an older {stage.name}: run "
                "without --stage to update"
            )


class _Unheld:
    """Replaces the lock on processes other than 0."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...
