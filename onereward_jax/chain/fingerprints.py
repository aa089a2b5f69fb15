"""Fingerprints of what config fields name: the content counts, not the path.

Weights of tens of GB are told apart by samples of their files; everything else is read whole. Both
give the same fingerprint for a copy in another place.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from ml_collections import FrozenConfigDict

from onereward_jax.annotation.answers import what_is_said
from onereward_jax.chain.base_models import MODELS, made_by
from onereward_jax.chain.staleness import Digest
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.convert import hub_commit, resolve_folder
from onereward_jax.data.metadata_lines import METADATA, metadata_lines
from onereward_jax.parallel.progress import announce
from onereward_jax.storage import local_path, states_below

WHOLE_BYTES = 4 << 20
"""Files up to this size are read whole."""
SAMPLES, SAMPLE_BYTES = 64, 64 << 10
"""Of larger ones so many pieces of this size, evenly spaced, the head and the end among them."""

MODEL_FILES = (".safetensors", ".json", ".txt", ".jinja", ".model")
"""What is read of a model's folder."""

NONE = "none"
MADE_HERE = "made by an earlier stage"

DIGESTS = "picture_digests.json"
"""In the work folder: digests of a data folder's files, so that each is read once."""


def of_file(path: pathlib.Path) -> str:
    """The fingerprint of a file: of all of it, or of its size and samples.

    Raises:
      OSError: it cannot be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        if size <= WHOLE_BYTES:
            digest.update(file.read())
        else:
            for number in range(SAMPLES):
                file.seek((size - SAMPLE_BYTES) * number // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def of_model(folder: pathlib.Path) -> str:
    """The fingerprint of a model's folder: the files that are read, by their names in it."""
    files = (path for path in folder.rglob("*") if path.suffix in MODEL_FILES and path.is_file())
    return _of_named((path.relative_to(folder).as_posix(), of_file(path)) for path in files)


def model(field: str) -> Digest:
    """Of the model that `field` names, a folder or the hub's."""

    def digest(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
        if field in MODELS and made_by(config, field):
            return MADE_HERE  # what it depends on are inputs of that stage
        name = _value(config, field)
        if not name:
            return NONE
        folder = resolve_folder(name, f"config.{field}")
        _tell_commit(field, name, hub_commit(folder))
        return of_model(folder)

    return digest


@functools.cache
def _tell_commit(field: str, name: str, commit: str | None) -> None:
    """Once: which commit of a model on the hub is taken."""
    if commit:
        announce(f"config.{field}: {name} is commit {commit} of the Hugging Face hub")


def file(field: str) -> Digest:
    """Of the file that `field` names; none where it is empty."""

    def digest(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
        name = _value(config, field)
        return of_file(local_path(name)) if name else NONE

    return digest


def folder(field: str) -> Digest:
    """Of every file below the folder that `field` names, such as a TFDS data set."""

    def digest(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
        top = local_path(_value(config, field), again=False)
        files = (path for path in top.rglob("*") if path.is_file())
        return _of_named((path.relative_to(top).as_posix(), of_file(path)) for path in files)

    return digest


def pictures(field: str) -> Digest:
    """Of a data folder: its metadata, and every file that the metadata names.

    Digests of files are kept in the work folder; a file is read again when its size or time is
    another one. Of a bucket nothing but the metadata is fetched as long as no file is.
    """

    def digest(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
        top = str(_value(config, field)).rstrip("/")
        metadata = local_path(f"{top}/{METADATA}")
        if not metadata.is_file():
            raise FileNotFoundError(
                f"config.{field}: there is no {top}/{METADATA}, by which the run tells whether its "
                "stages are up to date"
            )
        lines = metadata_lines(metadata)
        state_of = states_below(top)
        names = sorted({name for line in lines for name in _named_files(line)})
        known = _read_digests(workdir / DIGESTS)

        def one(name: str) -> tuple[str, list[Any]]:
            state = state_of(name)
            if state is None:
                return name, [0, 0, "missing"]
            before, now = known.get(name), [state.size, state.changed]
            if before and before[:2] == now:
                return name, before
            return name, [*now, of_file(local_path(top, again=False) / name)]

        with concurrent.futures.ThreadPoolExecutor() as threads:
            found = dict(threads.map(one, names))
        if found != known and workdir.is_dir():
            _write_digests(workdir / DIGESTS, found)
        rows = hashlib.sha256("\n".join(_rows(lines)).encode()).hexdigest()
        return _of_named([(METADATA, rows), *((name, entry[2]) for name, entry in found.items())])

    return digest


def answers(field: str, in_place: str) -> Digest:
    """Of the answers in people's files, in whatever order and form they are written.

    Args:
      field: names a file of answers, or a folder of such files.
      in_place: file in the work folder that is meant where the field is empty.
    """

    def digest(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
        name = _value(config, field)
        path = local_path(name) if name else workdir / in_place
        if not path.exists():
            return NONE
        # Questions that a stage has just written change nothing of what it read.
        text = "\n".join(sorted(set(what_is_said(path))))
        return hashlib.sha256(text.encode()).hexdigest()[:16] if text else NONE

    return digest


def _rows(lines: Iterable[str]) -> Iterable[str]:
    """What counts of the lines of metadata, once each; a bad line as it stands."""
    return dict.fromkeys(filter(None, map(_row, lines)))


def _row(line: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return line.strip()
    if isinstance(row, dict):
        row = {name: value for name, value in row.items() if value is not None}
    return json.dumps(row, sort_keys=True)


def _named_files(line: str) -> Iterable[str]:
    """The files that a row of metadata names; a bad row is the stage's to complain of."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(row, dict):
        return ()
    return [row[name] for name in ("image", "mask", "target") if isinstance(row.get(name), str)]


def _read_digests(path: pathlib.Path) -> dict[str, list[Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # they are computed anew


def _write_digests(path: pathlib.Path, digests: dict[str, list[Any]]) -> None:
    # Nobody holds the work folder yet: another run may write its digests at the same moment.
    with contextlib.suppress(FileNotFoundError), atomic_file(path) as draft:
        draft.write_text(json.dumps(digests, ensure_ascii=False), encoding="utf-8")


def _of_named(parts: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for name, part in sorted(parts):
        digest.update(f"{name}\0{part}\0".encode())
    return digest.hexdigest()[:16]


def _value(config: FrozenConfigDict, field: str) -> Any:
    for name in field.split("."):
        config = config[name]
    return config
