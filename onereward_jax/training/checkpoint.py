"""Checkpoints: train state, data iterator and a JSON description, written atomically.

Orbax writes to a temporary folder and renames it when everything is on disk; in a bucket, which
cannot rename, it writes a commit file last. So `latest_step` never finds an incomplete checkpoint.
Each process writes its own shards, process 0 the JSON. The iterator's state counts batches and is
the same on all processes, so a checkpoint can be restored on any number of processes.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.options import AtomicityMode, AtomicityOptions

from onereward_jax.parallel import barrier, is_writer
from onereward_jax.parallel.distributed import true_on_all
from onereward_jax.storage import BucketFolder, is_bucket, mount_of
from onereward_jax.training.train_state import TrainState

DRAFT = ".orbax-checkpoint-tmp"
"""Part of Orbax's name of an incomplete checkpoint."""

COMMITTED = "commit_success.txt"
"""Orbax's commit file of a checkpoint in a bucket."""

STATE, DATA, ABOUT = "state", "data", "about"
"""The items of a checkpoint: arrays, grain iterator, JSON."""


class IncompatibleCheckpoint(ValueError):
    """The checkpoint belongs to another model, query template or data pipeline."""


@dataclasses.dataclass(frozen=True)
class About:
    """The JSON item of a checkpoint.

    Attributes:
      must_match: settings that must equal those of the run that restores (model sizes, version of
        the query template, shape of the data pipeline); compared before restoring.
      config: the full config, for information.
    """

    must_match: Mapping[str, Any]
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Checkpointer:
    """Saves and restores the checkpoints of one run; a context manager that waits at its end."""

    def __init__(self, folder: epath.PathLike, about: About, *, keep: int = 3) -> None:
        """Opens `folder`, creating it if missing.

        Args:
          folder: has only this run's checkpoints; may be in a bucket.
          about: stored with each checkpoint and compared when restoring.
          keep: number of newest checkpoints to keep; older ones are deleted.
        """
        self._about = about
        self._folder = _absolute(folder)
        _remove_drafts(self._folder)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            enable_async_checkpointing=True,
            atomicity_options=_atomicity(self._folder),
        )
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=options,
            item_handlers={
                STATE: ocp.StandardCheckpointHandler(),
                DATA: ocp.JsonCheckpointHandler(),
                ABOUT: ocp.JsonCheckpointHandler(),
            },
        )

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data: grain.DatasetIterator) -> None:
        """Saves asynchronously: arrays are copied before this returns, then written in background.

        Does nothing if the step already has a checkpoint.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                **{
                    STATE: ocp.args.StandardSave(_present(state)),
                    DATA: ocp.args.JsonSave(data.get_state()),
                    ABOUT: ocp.args.JsonSave(_plain(self._about)),
                }
            ),
        )

    def restore_newest(
        self, abstract: TrainState, data: grain.DatasetIterator
    ) -> tuple[TrainState | None, list[str]]:
        """Restores the newest readable checkpoint; damaged ones are moved aside.

        Args:
          abstract, data: see `restore`.

        Returns:
          The state (None if there is no readable checkpoint), and a message for each damaged one.

        Raises:
          IncompatibleCheckpoint: see `restore`.
        """
        complaints = []
        while (step := self.latest_step()) is not None:
            state, failure = None, ""
            try:
                state = self.restore(abstract, data, step)
            except IncompatibleCheckpoint:
                raise
            except Exception as error:  # noqa: BLE001  # Orbax raises various types for damage
                failure = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            # The damage may be in a shard that only one process reads.
            if not true_on_all(state is not None):
                kept = self._set_aside(step)
                complaints.append(f"checkpoint {step} cannot be read and is now {kept}: {failure}")
                continue
            return state, complaints
        return None, complaints

    def _set_aside(self, step: int) -> epath.Path:
        kept = self._folder.parent / f"{self._folder.name}.damaged" / str(step)
        if is_writer() and is_bucket(kept):
            names = (f"{folder.name}/{step}" for folder in (self._folder, kept.parent))
            BucketFolder(str(self._folder.parent)).move(*names, last=COMMITTED)
        elif is_writer():
            kept.parent.mkdir(exist_ok=True)
            shutil.rmtree(kept, ignore_errors=True)
            (self._folder / str(step)).rename(kept)
        barrier("a damaged checkpoint")
        self._manager.reload()
        return kept

    def restore(
        self, abstract: TrainState, data: grain.DatasetIterator, step: int | None = None
    ) -> TrainState:
        """Restores a checkpoint, including the position of `data`.

        Args:
          abstract: shapes and shardings to restore to; the mesh may differ from the saved one.
          data: an iterator over the same pipeline; its state is set in place.
          step: step of the checkpoint; None: the newest.

        Raises:
          FileNotFoundError: there is no checkpoint.
          IncompatibleCheckpoint: naming the first setting or array that differs.
        """
        step = self.latest_step() if step is None else step
        if step is None:
            raise FileNotFoundError(f"{self._folder}: no complete checkpoint")
        where = f"checkpoint {self._folder / str(step)}"
        self._compare(step, where, abstract)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                **{
                    STATE: ocp.args.StandardRestore(_present(abstract)),
                    DATA: ocp.args.JsonRestore(),
                }
            ),
        )
        data.set_state(restored[DATA])
        return type(abstract)(**restored[STATE])

    def wait(self) -> None:
        """Blocks until all saves are on disk."""
        self._manager.wait_until_finished()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def _compare(self, step: int, where: str, abstract: TrainState) -> None:
        parts = ocp.args.Composite(**{ABOUT: ocp.args.JsonRestore()})
        about = self._manager.restore(step, args=parts)[ABOUT]
        saved = _flat(about["must_match"])
        current = _flat(_plain(self._about)["must_match"])
        for name in sorted(saved.keys() | current.keys()):
            if saved.get(name) != current.get(name):
                raise IncompatibleCheckpoint(
                    f"{where} was written with {name} = {saved.get(name)!r}, "
                    f"now it is {current.get(name)!r}"
                )
        found = _shapes(self._manager.item_metadata(step)[STATE])
        for name, shape in _shapes(abstract).items():
            if found.get(name) != shape:
                raise IncompatibleCheckpoint(
                    f"{where}: {name} has shape {found.get(name)}, expected {shape}"
                )


def _present(state: TrainState) -> dict[str, Any]:
    """The state's fields by name; optional ones only if there are any, as in older checkpoints."""
    defaults = type(state)._field_defaults
    fields = state._asdict()
    return {k: v for k, v in fields.items() if v is not None or k not in defaults}


def _remove_drafts(folder: epath.Path) -> None:
    """Removes incomplete checkpoints of killed saves, which Orbax does not remove.

    In a bucket they have the name of their step, and are overwritten when that step is saved again.
    """
    if is_writer() and not is_bucket(folder):
        for draft in folder.glob(f"*{DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)


def _absolute(folder: epath.PathLike) -> epath.Path:
    folder = epath.Path(folder)
    return folder if is_bucket(folder) else folder.resolve()  # resolve() breaks URLs


def _atomicity(folder: epath.Path) -> AtomicityOptions:
    """Uses a commit file instead of a rename on mounted buckets, whose renames are not atomic.

    A mounted bucket renames by copying and deleting files: a process killed meanwhile would leave
    an incomplete checkpoint under its final name. Orbax treats such a mount like a disk.
    """
    mount = None if is_bucket(folder) else mount_of(Path(folder))
    fuse = mount is not None and mount.is_fuse
    return AtomicityOptions(AtomicityMode.COMMIT_FILE if fuse else AtomicityMode.AUTO)


def _plain(about: About) -> dict[str, Any]:
    """The value after a JSON round trip: tuples become lists, keys strings."""
    return json.loads(json.dumps(dataclasses.asdict(about), default=str))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat |= _flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by path; paths of a state and of Orbax's metadata are spelled the same."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        ".".join(_piece(key) for key in path): tuple(leaf.shape)
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


def _piece(key: Any) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
