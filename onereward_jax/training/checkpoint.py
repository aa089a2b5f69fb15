"""Checkpoints: state, data iterator and a JSON description, written together or not at all.

Orbax writes into a folder with a temporary name and renames it when everything is on disk; in a
bucket, which cannot rename, it writes a last file instead. So a half-written checkpoint is never
found by `latest_step`. Of several processes each writes its shards
and process 0 the JSON. The iterator's state counts batches and is the same in all of them, so that
a checkpoint also fits another number of processes.
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
"""Orbax's, in the name of a checkpoint that is not complete."""

COMMITTED = "commit_success.txt"
"""Orbax's, of a checkpoint in a bucket."""

STATE, DATA, ABOUT = "state", "data", "about"
"""The parts of a checkpoint: arrays, grain iterator, JSON."""


class IncompatibleCheckpoint(ValueError):
    """The checkpoint belongs to another model, another query text or another data pipeline."""


@dataclasses.dataclass(frozen=True)
class About:
    """What is written beside the arrays.

    Attributes:
      must_match: settings without which the arrays mean something else (model sizes, version of
        the query template, shape of the data pipeline); compared before restoring.
      config: the whole experiment, for the reader.
    """

    must_match: Mapping[str, Any]
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Checkpointer:
    """Writes and reads the checkpoints of one run; a context manager that waits at its end."""

    def __init__(self, folder: epath.PathLike, about: About, *, keep: int = 3) -> None:
        """Opens `folder`, creating it if missing.

        Args:
          folder: of this run's checkpoints only; may be in a bucket.
          about: stored with each checkpoint and compared at restoring.
          keep: newest checkpoints kept; older ones are deleted.
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
        """Starts writing; arrays are copied before this returns, the disk follows behind.

        A step that is already there is left alone.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                **{
                    STATE: ocp.args.StandardSave(state),
                    DATA: ocp.args.JsonSave(data.get_state()),
                    ABOUT: ocp.args.JsonSave(_plain(self._about)),
                }
            ),
        )

    def restore_newest(
        self, abstract: TrainState, data: grain.DatasetIterator
    ) -> tuple[TrainState | None, list[str]]:
        """Reads the newest checkpoint that can be read; damaged ones are moved aside.

        Args:
          abstract, data: see `restore`.

        Returns:
          The state, None when there is no checkpoint to read, and a sentence for each damaged one.

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
            except Exception as error:  # noqa: BLE001  # whatever a damaged file makes Orbax raise
                failure = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            # A part may be damaged that only one process reads.
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
        """Reads a checkpoint; `data` is set to where it stood.

        Args:
          abstract: shapes and shardings to restore to; the mesh may differ from the one saved on.
          data: an iterator over the same pipeline, changed in place.
          step: which checkpoint; the newest by default.

        Raises:
          FileNotFoundError: there is none.
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
                    STATE: ocp.args.StandardRestore(abstract),
                    DATA: ocp.args.JsonRestore(),
                }
            ),
        )
        data.set_state(restored[DATA])
        return restored[STATE]

    def wait(self) -> None:
        """Returns when everything that was saved is on disk."""
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
        wanted = _flat(_plain(self._about)["must_match"])
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                raise IncompatibleCheckpoint(
                    f"{where} was written with {name} = {saved.get(name)!r}, "
                    f"now it is {wanted.get(name)!r}"
                )
        found = _shapes(self._manager.item_metadata(step)[STATE])
        for name, shape in _shapes(abstract).items():
            if found.get(name) != shape:
                raise IncompatibleCheckpoint(
                    f"{where}: {name} has shape {found.get(name)}, expected {shape}"
                )


def _remove_drafts(folder: epath.Path) -> None:
    """Removes what killed saves have left, each as large as a checkpoint; Orbax leaves it there.

    In a bucket it has the name of its step, and is written over when that step comes again.
    """
    if is_writer() and not is_bucket(folder):
        for draft in folder.glob(f"*{DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)


def _absolute(folder: epath.PathLike) -> epath.Path:
    folder = epath.Path(folder)
    return folder if is_bucket(folder) else folder.resolve()  # which would take a URL for a name


def _atomicity(folder: epath.Path) -> AtomicityOptions:
    """How a checkpoint becomes complete where a folder cannot be renamed at one stroke.

    A mounted bucket copies and deletes file by file: a process killed meanwhile would leave half a
    checkpoint under its final name. There, as in a bucket itself, a file written last says that it
    is complete. Orbax takes such a mount for a disk.
    """
    mount = None if is_bucket(folder) else mount_of(Path(folder))
    fuse = mount is not None and mount.is_fuse
    return AtomicityOptions(AtomicityMode.COMMIT_FILE if fuse else AtomicityMode.AUTO)


def _plain(about: About) -> dict[str, Any]:
    """As JSON will return it: tuples as lists, keys as strings."""
    return json.loads(json.dumps(dataclasses.asdict(about), default=str))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat |= _flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by path; the path's pieces are named alike in a state and in Orbax's metadata."""
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
