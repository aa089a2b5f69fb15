"""What a stage is to the chain, and what the chain hands to a stage."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath
from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from onereward_jax.chain.base_models import made_by, made_folder
from onereward_jax.chain.config_rules import Rule
from onereward_jax.chain.output_folders import OutputFolders
from onereward_jax.chain.staleness import Effect, Fields
from onereward_jax.convert import resolve_folder

Results = Mapping[str, str | int | float]
"""Headline figures of a stage, for the closing table of a run."""


@dataclasses.dataclass(frozen=True)
class StageContext:
    """Everything a stage may know about the run it belongs to.

    Attributes:
      stage: the stage's own name.
      config: the whole config; a stage reads only the sections it declared.
      workdir: the folder of the run.
      mesh: the devices of the run.
      started: when this process began with the stage (`time.time()`).
      must_match: inputs without which the stage's half-finished output means something else.
      folders: of the stages, and how what is in them gets to other hosts; by default `workdir` is
        where it is wanted.
    """

    stage: str
    config: FrozenConfigDict
    workdir: pathlib.Path
    mesh: Mesh
    started: float = dataclasses.field(default_factory=time.time)
    must_match: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    folders: OutputFolders | None = None

    def __post_init__(self) -> None:
        if self.folders is None:
            object.__setattr__(self, "folders", OutputFolders(self.workdir))

    @property
    def folder(self) -> pathlib.Path:
        """Where this stage writes; it exists when the stage starts."""
        return self.workdir / self.stage

    def checkpoints(self, name: str = "checkpoints") -> epath.Path:
        """The folder of this stage's checkpoints; of a run in a bucket it is there."""
        copy = self.folders.copy
        top = self.workdir if copy is None else copy.bucket.url
        return epath.Path(top) / self.stage / name

    def share(self, name: str = "") -> None:
        """All processes call it: what some have written below `folder`/name, all find there."""
        self.folders.share(f"{self.stage}/{name}".rstrip("/"))

    def output(self, stage: str) -> pathlib.Path:
        """The folder an earlier stage wrote. Declare that stage in `Stage.reads`."""
        return self.workdir / stage

    def program(self, name: str) -> str:
        """Names what the loop `name` compiles, as of `parallel.progress.progress_bar`."""
        models = self.config.models
        return ", ".join((name, models.transformer or models.editor, models.judge))

    def base_model(self, name: str) -> pathlib.Path:
        """The folder of the model the run starts from: "editor" or "judge".

        `config.models.<name>`: see `convert.resolve_folder`, or "stage:pretrain/editor" for what an
        earlier stage of the run makes.

        Raises:
          FileNotFoundError: there is no such folder.
        """
        if made_by(self.config, f"models.{name}"):
            return made_folder(self.config, f"models.{name}", self.workdir)
        return resolve_folder(self.config.models[name], f"config.models.{name}")

    def base_transformer(self) -> pathlib.Path:
        """The folder of the base editor's transformer.

        It is the editor's own, unless `config.models.transformer` names another.

        Raises:
          FileNotFoundError: there is no such folder.
        """
        if not self.config.models.transformer:
            return self.base_model("editor") / "transformer"
        return resolve_folder(self.config.models.transformer, "config.models.transformer")


def nothing(context: StageContext) -> None:
    """For stages with nothing to check, or to write down, of their own."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One link of the chain.

    Attributes:
      name: its name on the command line, in `config.stages` and of its folder in the workdir.
      summary: one plain sentence for people who have never run it.
      run: does the work, writes into `context.folder` and returns headline figures. Of several
        processes all run it, and process 0 alone writes what is not a sharded array.
      check: raises a ValueError, FileNotFoundError or ModuleNotFoundError for what would end the
        stage in an error of the user's. Called on process 0 before the first stage of the chain, so
        no output of an earlier stage need be there.
      format: version of what it writes and of how it computes; another one makes it run anew.
      versions: of other things in the code that the output depends on, such as a query template.
      fields: every field of the config that it reads, and what a change of it means. Of two
        entries with the same field the later one counts.
      rules: of fields that only this stage has, by dotted name.
      plugins: fields of the config that may name a plug-in (`plugins.FUNCTIONS`), and what a change
        of the fields that the plug-in reads means.
      reads: earlier stages whose output it reads, and what a change of it means; those that
        `config.stages` leaves out are not waited for.
      resumes: it goes on from its own output, half-finished or of fewer steps. Otherwise such
        output is removed before the stage starts again.
      before_publishing: writes into `context.folder` what is kept elsewhere while the stage runs,
        such as a database; called on process 0 now and then, in any thread, and at the end.
      alone: process 0 runs it while the others wait; it uses no device of theirs.
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
    resumes: bool = False
    before_publishing: Callable[[StageContext], None] = nothing
    alone: bool = False
