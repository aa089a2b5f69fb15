"""The interface between chain and stages: `Stage` and `StageContext`."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath
from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from onereward_jax.chain.allowed_values import Rule
from onereward_jax.chain.base_models import made_by, made_folder
from onereward_jax.chain.output_folders import OutputFolders
from onereward_jax.chain.rounds import in_round, numbered
from onereward_jax.chain.staleness import Effect, Fields
from onereward_jax.convert import resolve_folder, resolve_weights

Results = Mapping[str, str | int | float]
"""Main results of a stage, for the summary table of a run."""


class InputsChanged(Exception):
    """The stage has collected inputs while it ran, such as answers: it is to be run again, so that
    its record has them. Only in a run of a single process."""


@dataclasses.dataclass(frozen=True)
class StageContext:
    """The context of a running stage.

    Attributes:
      stage: name of the stage, with the round if it is a later one ("rl-2").
      config: the full config; a stage may only read fields that it declares.
      workdir: the work folder on this host.
      mesh: the device mesh.
      started: start time of the stage in this process (`time.time()`).
      must_match: inputs that partial output of the stage must have been made from.
      folders: the output folders and their publication to other hosts; None: a local `workdir`.
      round: the round whose output the stage writes or reads, see `rounds`.
    """

    stage: str
    config: FrozenConfigDict
    workdir: pathlib.Path
    mesh: Mesh
    started: float = dataclasses.field(default_factory=time.time)
    must_match: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    folders: OutputFolders | None = None
    round: int = 1

    def __post_init__(self) -> None:
        if self.folders is None:
            object.__setattr__(self, "folders", OutputFolders(self.workdir))

    @property
    def folder(self) -> pathlib.Path:
        """The stage's output folder; exists when the stage starts."""
        return self.workdir / self.stage

    def checkpoints(self, name: str = "checkpoints") -> epath.Path:
        """The folder of this stage's checkpoints; in the bucket for a run in a bucket."""
        copy = self.folders.copy
        top = self.workdir if copy is None else copy.bucket.url
        return epath.Path(top) / self.stage / name

    def share(self, name: str = "") -> None:
        """Makes what some processes wrote below `folder`/name available to all (all call it)."""
        self.folders.share(f"{self.stage}/{name}".rstrip("/"))

    @property
    def module(self) -> str:
        """Name of the stage, without the round."""
        return self.stage.removesuffix(f"-{self.round}")

    def output(self, stage: str, round: int | None = None) -> pathlib.Path:
        """The output folder of an earlier stage, which must be declared in `Stage.reads`.

        Args:
          stage: its name, without a round.
          round: None: that of the context.
        """
        return self.workdir / in_round(stage, self.round if round is None else round)

    def in_round(self, name: str) -> str:
        """The name of a folder of this round."""
        return numbered(name, self.round)

    def program(self, name: str) -> str:
        """Names what the loop `name` compiles, as of `parallel.progress.progress_bar`."""
        models = self.config.get("models")
        if models is None:  # of a stage that trains base models from scratch
            return name
        return ", ".join((name, models.transformer or models.editor, models.judge))

    def base_model(self, name: str) -> pathlib.Path:
        """The folder of a base model: "editor" or "judge".

        Set by `config.models.<name>`: see `convert.resolve_folder`, or "stage:pretrain/editor" for
        output of an earlier stage.

        Raises:
          FileNotFoundError: there is no such folder.
        """
        if made_by(self.config, f"models.{name}"):
            return made_folder(self.config, f"models.{name}", self.workdir)
        return resolve_folder(self.config.models[name], f"config.models.{name}")

    def base_transformer(self) -> pathlib.Path:
        """The folder, or the single file, of the base editor's transformer.

        The editor's own, unless `config.models.transformer` names another.

        Raises:
          FileNotFoundError: there is no such folder or file.
        """
        if not self.config.models.transformer:
            return self.base_model("editor") / "transformer"
        return resolve_weights(self.config.models.transformer, "config.models.transformer")


def nothing(context: StageContext) -> None:
    """Default `check` and `before_publishing`: does nothing."""


def unchanged(config: FrozenConfigDict) -> FrozenConfigDict:
    """Default `configured`."""
    return config


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of the chain.

    Attributes:
      name: name on the command line, in `config.stages` and of its output folder.
      summary: one-line help text.
      run: does the work, writes to `context.folder` and returns its main results. Runs on all
        processes; only process 0 writes files other than sharded arrays.
      check: raises ValueError, FileNotFoundError or ModuleNotFoundError for user errors. Called on
        process 0 before the first stage, when outputs of earlier stages may not exist.
      format: version of its output and algorithm; if it changes, the stage starts over.
      versions: versions of other code that the output depends on, such as a query template.
      fields: every config field that it reads, with the effect of a change. A later entry for the
        same field overrides an earlier one.
      rules: validation rules of fields that only this stage has, by dotted name.
      plugins: config fields that may name a plug-in (`plugins.FUNCTIONS`), with the effect of a
        change of the fields that the plug-in reads.
      reads: earlier stages whose output it reads, with the effect of a change; those that are not
        in `config.stages` are ignored.
      reads_also: config -> more of them, for those that depend on settings.
      resumes: it can resume from partial output, or from output with fewer steps. Otherwise such
        output is removed before the stage starts.
      before_publishing: writes to `context.folder` what is kept elsewhere while the stage runs,
        such as a database; called on process 0 periodically, in any thread, and at the end.
      alone: only process 0 runs it, without devices of the others, which wait.
      round: see `StageContext.round`.
      configured: the config of the run -> as this stage sees it.
    """

    name: str
    summary: str
    run: Callable[[StageContext], Results | None]
    check: Callable[[StageContext], None] = nothing
    format: int = 1
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fields: tuple[Fields, ...] = ()
    rules: Mapping[str, Rule] = dataclasses.field(default_factory=dict)
    plugins: Mapping[str, Effect] = dataclasses.field(default_factory=dict)
    reads: Mapping[str, Effect] = dataclasses.field(default_factory=dict)
    reads_also: Callable[[FrozenConfigDict], Mapping[str, Effect]] = lambda config: {}
    resumes: bool = False
    before_publishing: Callable[[StageContext], None] = nothing
    alone: bool = False
    round: int = 1
    configured: Callable[[FrozenConfigDict], FrozenConfigDict] = unchanged
