"""The output folders of stages: moves them aside, restores, removes and records them.

For a work folder in a bucket, process 0 applies every change to the bucket and to its copy. A
bucket has no renames: a folder is valid if it has a record, which is written last and deleted
first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from onereward_jax.annotation.questions import FILE as QUESTIONS
from onereward_jax.chain.stage_record import FILE, StageRecord, read_record, write_record
from onereward_jax.chain.workdir_lock import system_name
from onereward_jax.common.periodic_thread import call_periodically
from onereward_jax.common.user_path import user_path
from onereward_jax.parallel import barrier, is_writer
from onereward_jax.parallel.distributed import first_on_host
from onereward_jax.storage import BucketFolder, WorkingCopy, copies_folder, is_bucket, mount_of

MOUNTS = Path("/proc/mounts")

EVERY_SECONDS = 60.0
"""Interval at which a stage's progress is published from this host."""


@dataclasses.dataclass(frozen=True)
class OutputFolders:
    """The output folders of a run.

    Attributes:
      workdir: the work folder on this host.
      copy: for a work folder in a bucket, the bucket folder and its copy; None otherwise.
      keeper: whether this process manages the copy on its host.
      databases: folder of the databases if they cannot be in `workdir`, as on a mounted bucket.
    """

    workdir: Path
    copy: WorkingCopy | None = None
    keeper: bool = True
    databases: Path | None = None

    @property
    def keeps_lines(self) -> bool:
        """Whether databases must also be saved as JSON lines."""
        return self.copy is not None or self.databases is not None

    def check_mount(self) -> str:
        """A message about a work folder on a mounted bucket; "" otherwise.

        Raises:
          ValueError: the mount does not support renaming folders.
        """
        mount = mount_of(self.workdir, MOUNTS)
        if self.copy is not None or mount is None or not mount.is_fuse:
            return ""
        probe = self.workdir / f".rename-{uuid.uuid4().hex}"
        renamed = probe.with_name(f"{probe.name}d")
        try:
            probe.mkdir(parents=True)
            (probe / "file").touch()
            probe.rename(renamed)
        except OSError as error:
            raise ValueError(
                f"--workdir={self.workdir} is in a {mount.kind} mount of {mount.source}, where "
                f"folders cannot be renamed ({error.strerror}): mount it with --rename-dir-limit="
                "1000000, or name the bucket itself, --workdir=gs://..., which needs no mount"
            ) from error
        finally:
            shutil.rmtree(probe, ignore_errors=True)
            shutil.rmtree(renamed, ignore_errors=True)
        return (
            f"the work folder is in a {mount.kind} mount of {mount.source}: databases stay in "
            f"{self.databases}; renaming a folder is atomic only in a bucket with a "
            "hierarchical namespace; --workdir=gs://... needs neither"
        )

    def place(self, path: Path) -> str:
        """The user-visible location of a path in the work folder."""
        if self.copy is None:
            return str(path)
        return f"{self.copy.bucket}/{path.relative_to(self.workdir).as_posix()}".removesuffix("/.")

    def record(self, name: str) -> StageRecord | None:
        """The current `stage.json` of a folder."""
        return read_record(self.workdir / name)

    def declare(self, name: str, record: StageRecord) -> None:
        """Writes the record of a folder, which is created if missing."""
        (self.workdir / name).mkdir(parents=True, exist_ok=True)
        write_record(self.workdir / name, record)
        self.publish_file(f"{name}/{FILE}")

    def publish_file(self, name: str) -> None:
        """Publishes one file of the work folder, if it exists."""
        if self.copy is not None and (self.workdir / name).is_file():
            self.copy.publish_file(name)

    def has_output(self, name: str) -> bool:
        """Whether a folder has files other than the record."""
        if self.copy is not None:
            return any(one != f"{name}/{FILE}" for one in self.copy.bucket.list(name))
        folder = self.workdir / name
        return folder.exists() and any(entry.name != FILE for entry in folder.iterdir())

    def remove(self, name: str) -> None:
        """Removes a folder if it exists."""
        if self.copy is not None:
            self.copy.bucket.remove(name, first=FILE)
        if (self.workdir / name).exists():
            shutil.rmtree(self.workdir / name)

    def set_aside(self, name: str) -> str:
        """Renames a folder to `<name>.old-<number>`; returns its new location."""
        taken = set(self.copy.bucket.folders()) if self.copy else set()
        number = 1
        while (kept := f"{name}.old-{number}") in taken or (self.workdir / kept).exists():
            number += 1
        self._rename(name, kept)
        return self.place(self.workdir / kept)

    def take_back(self, kept: Path, name: str) -> None:
        """Renames a folder that was set aside back to `name`, which must not exist."""
        self._rename(kept.name, name)

    def fetch_heads(self) -> None:
        """Syncs the heads (records, questions) to all copies."""
        if self.copy is not None:
            if self.keeper:
                self.copy.fetch_heads()
            barrier("what is in the bucket", seconds=None)

    def fetch_heads_here(self) -> None:
        """The same for this host only, without a barrier."""
        if self.copy is not None:
            self.copy.fetch_heads()

    def fetch(self, names: Iterable[str], own: str, *, alone: bool) -> None:
        """Fetches folders to every host, or with `alone` to process 0; creates missing ones.

        Args:
          names: folders that a stage reads.
          own: the folder of the stage.
          alone: whether only process 0 runs the stage.
        """
        names = [*names, own]
        if self.copy is not None:
            if self.keeper and (is_writer() or not alone):
                for name in names:
                    # Images that the stage made earlier are fetched when they are shared.
                    left_out = () if is_writer() or name != own else (".png",)
                    self.copy.fetch(name, left_out=left_out)
                    (self.workdir / name).mkdir(parents=True, exist_ok=True)
            barrier("files of the bucket", seconds=None)

    def fetch_here(self, names: Iterable[str]) -> None:
        """Fetches folders to this host; unlike `fetch`, without a barrier."""
        if self.copy is not None:
            for name in names:
                self.copy.fetch(name)

    def share(self, name: str) -> None:
        """Makes a folder or file, written by some processes, available to all; all must call it."""
        barrier(f"files of {name}".replace("/", " "), seconds=None)
        if self.copy is None:
            return
        if self.keeper:
            self.copy.publish(name, remove=is_writer())
        barrier(f"published {name}".replace("/", " "), seconds=None)
        if self.keeper:
            self.copy.fetch(name, remove=False)
        barrier(f"fetched {name}".replace("/", " "), seconds=None)

    @contextlib.contextmanager
    def kept_up(self, name: str, save_lines: Callable[[], None]) -> Iterator[None]:
        """Context of a stage: publishes its progress every minute.

        Args:
          name: the stage's folder.
          save_lines: saves databases as JSON lines, on process 0.
        """
        if not (self.keeps_lines and (self.keeper or is_writer())):
            yield
            return

        def write_down() -> None:
            if is_writer():
                save_lines()
            if self.copy is not None and self.keeper:
                self.copy.publish(name, remove=is_writer())

        with call_periodically(write_down, EVERY_SECONDS, f"{name}: progress"):
            yield

    def _rename(self, source: str, destination: str) -> None:
        if self.copy is None:
            (self.workdir / source).rename(self.workdir / destination)
            return
        self.copy.bucket.move(source, destination, last=FILE)
        for name in (source, destination):  # fetched again when needed
            shutil.rmtree(self.workdir / name, ignore_errors=True)
        self.copy.fetch_heads()


def open_workdir(workdir: str | Path) -> OutputFolders:
    """The output folders of a run, local or in a bucket; all processes must call it.

    Args:
      workdir: a folder, or gs://bucket/path; expands "~".

    Raises:
      ValueError, OSError, ModuleNotFoundError: the bucket cannot be used.
    """
    if is_bucket(workdir):
        bucket = BucketFolder(str(workdir))
        local = copies_folder() / "runs" / bucket.url.removeprefix("gs://")
        keeper = first_on_host(f"{system_name()} {local}")
        return OutputFolders(local, WorkingCopy(bucket, local, heads=(FILE, QUESTIONS)), keeper)
    folder = user_path(workdir)
    mount = mount_of(folder, MOUNTS)
    if mount is None or not mount.is_fuse:
        return OutputFolders(folder)
    databases = copies_folder() / "databases" / folder.resolve().relative_to("/")
    return OutputFolders(folder, databases=databases)
