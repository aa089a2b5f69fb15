"""The stores of candidates and preferences: SQLite files on this host, lines wherever others read.

A bucket, mounted or not, is no place for a database. There the store of a stage is a file on the
host of process 0, and `preferences.jsonl` in the stage's folder has its content: written now and
then and at the end, read by others, and what the store is made of again on the next host.
"""

from __future__ import annotations

from pathlib import Path

from onereward_jax.annotation import PreferenceStore
from onereward_jax.chain.stage import StageContext

STORE = "preferences.sqlite"
LINES = "preferences.jsonl"


def open_store(context: StageContext) -> PreferenceStore:
    """The store that this stage writes, on process 0; made when it is missing."""
    path = _database(context)
    if context.folders.keeps_lines:
        # What the lines do not say was not yet outside of the host that wrote it last.
        _remove(path)
        lines = context.folder / LINES
        store = PreferenceStore(path)
        if lines.exists():
            store.import_jsonl(lines)
        return store
    return PreferenceStore(path)


def new_store(context: StageContext) -> PreferenceStore:
    """The same, empty."""
    (context.folder / LINES).unlink(missing_ok=True)
    _remove(_database(context))
    return open_store(context)


def read_store(context: StageContext, stage: str) -> PreferenceStore:
    """The store of an earlier stage; of lines, a copy in memory."""
    if not context.folders.keeps_lines:
        return PreferenceStore(context.output(stage) / STORE)
    store = PreferenceStore(":memory:")
    store.import_jsonl(context.output(stage) / LINES)
    return store


def save_lines(context: StageContext) -> None:
    """Writes down the store of this stage, where it has one; may be called in any thread."""
    path = _database(context)
    if path.exists():
        with PreferenceStore(path) as store:
            store.export_jsonl(context.folder / LINES)


def _database(context: StageContext) -> Path:
    return (context.folders.databases or context.workdir) / context.stage / STORE


def _remove(path: Path) -> None:
    for part in path.parent.glob(f"{path.name}*"):  # with what SQLite keeps beside it
        part.unlink()
