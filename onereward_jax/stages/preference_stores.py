"""Opens the stores of candidates and preferences: local SQLite files, and JSON lines in buckets.

A database cannot be in a bucket, mounted or not. There the store is a file on the host of process
0, and `preferences.jsonl` in the stage's folder has its content: written periodically and at the
end, read by other hosts, and imported into a new store on the next host.
"""

from __future__ import annotations

from pathlib import Path

from onereward_jax.annotation import PreferenceStore
from onereward_jax.chain.stage import StageContext

STORE = "preferences.sqlite"
LINES = "preferences.jsonl"


def open_store(context: StageContext) -> PreferenceStore:
    """The store of this stage, on process 0; created if missing."""
    path = _database(context)
    if context.folders.keeps_lines:
        # The lines are authoritative: another host may have written them last.
        _remove(path)
        lines = context.folder / LINES
        store = PreferenceStore(path)
        if lines.exists():
            store.import_jsonl(lines)
        return store
    return PreferenceStore(path)


def new_store(context: StageContext) -> PreferenceStore:
    """An empty store of this stage."""
    (context.folder / LINES).unlink(missing_ok=True)
    _remove(_database(context))
    return open_store(context)


def read_store(context: StageContext, stage: str, round: int | None = None) -> PreferenceStore:
    """The store of an earlier stage; from JSON lines, a copy in memory.

    `round`: see `StageContext.output`.
    """
    folder = context.output(stage, round)
    if not context.folders.keeps_lines:
        return PreferenceStore(folder / STORE)
    store = PreferenceStore(":memory:")
    store.import_jsonl(folder / LINES)
    return store


def save_lines(context: StageContext) -> None:
    """Exports the store of this stage to JSON lines, if it exists. Thread-safe."""
    path = _database(context)
    if path.exists():
        with PreferenceStore(path) as store:
            store.export_jsonl(context.folder / LINES)


def _database(context: StageContext) -> Path:
    return (context.folders.databases or context.workdir) / context.stage / STORE


def _remove(path: Path) -> None:
    for part in path.parent.glob(f"{path.name}*"):  # including SQLite's -wal and -shm
        part.unlink()
