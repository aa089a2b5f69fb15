"""Fingerprints of files and folders named in the config: of the content, not the path.

Large weight files are fingerprinted by samples, everything else by its full content. A copy has the
same fingerprint.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import pathlib
from collections.abc import Collection, Iterable
from typing import Any

from ml_collections import FrozenConfigDict

from onereward_jax.annotation.answers import what_is_said
from onereward_jax.annotation.questions import FILE as QUESTIONS
from onereward_jax.annotation.web_settings import database_url, has_database
from onereward_jax.chain.base_models import MADE, MODELS, made_by
from onereward_jax.chain.staleness import Digest
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.user_path import user_path
from onereward_jax.convert import hub_commit, resolve_weights
from onereward_jax.data.example import RowError
from onereward_jax.data.picture_files import PHOTOGRAPH_FILES, files_below
from onereward_jax.data.picture_paths import find_picture
from onereward_jax.data.row_columns import PICTURES, field_of
from onereward_jax.data.row_files import METADATA
from onereward_jax.data.row_sources import Record, open_rows
from onereward_jax.parallel.progress import announce, progress_bar
from onereward_jax.reward.judge_folder import find_judge
from onereward_jax.storage import is_bucket, local_path, states_below

WHOLE_BYTES = 4 << 20
"""Files up to this size are read in full."""
SAMPLES, SAMPLE_BYTES = 64, 64 << 10
"""Number and size of the samples of larger files, evenly spaced, including start and end."""

MODEL_FILES = (".safetensors", ".json", ".txt", ".jinja", ".model")
"""Suffixes of the files that count in a model folder."""

NONE = "none"
MADE_HERE = "made by an earlier stage"

DIGESTS = "picture_digests.json"
"""File in the work folder that caches the digests of a data folder's files."""

CURATED, OUTLINES = "curated_digests.json", "outline_digests.json"
"""The same for the pictures of `curate`, and for a folder of masks."""

MANY = 1000
"""New files from which on reading them has a progress bar."""

CACHES = (DIGESTS, CURATED, OUTLINES)


def of_file(path: pathlib.Path, *, whole: bool = False) -> str:
    """The fingerprint of a file: of its content, or of its size and samples.

    Args:
      path: the file.
      whole: take no samples: a few bytes in the middle may change, as in a tar of pictures.

    Raises:
      OSError: the file cannot be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        if whole or size <= WHOLE_BYTES:
            while part := file.read(WHOLE_BYTES):
                digest.update(part)
        else:
            for number in range(SAMPLES):
                file.seek((size - SAMPLE_BYTES) * number // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def of_model(folder: pathlib.Path) -> str:
    """The fingerprint of a model: of names and content of its `MODEL_FILES`, or of its one file."""
    if folder.is_file():
        return of_file(folder)
    files = (path for path in folder.rglob("*") if path.suffix in MODEL_FILES and path.is_file())
    return _of_named((path.relative_to(folder).as_posix(), of_file(path)) for path in files)


def model(field: str) -> Digest:
    """Fingerprint of the model named by `field`: a folder, a file, or one on the hub."""

    def digest(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
        if field in MODELS and made_by(config, field):
            return MADE_HERE  # its inputs are those of that stage
        name = _value(config, field)
        if not name:
            return NONE
        folder = resolve_weights(name, f"config.{field}")
        _announce_commit(field, name, hub_commit(folder))
        if field == "models.judge" and (base := find_judge(folder).model) != folder:
            return f"{of_model(folder)} on {of_model(base)}"  # an adapter
        return of_model(folder)

    return digest


@functools.cache
def _announce_commit(field: str, name: str, commit: str | None) -> None:
    """Announces, once, the commit of a hub model."""
    if commit:
        announce(f"config.{field}: {name} is commit {commit} of the Hugging Face hub")


def file(field: str) -> Digest:
    """Fingerprint of the file named by `field`; NONE if the field is empty."""

    def digest(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
        name = _value(config, field)
        return of_file(local_path(name)) if name else NONE

    return digest


def of_folder(folder: pathlib.Path) -> str:
    """The fingerprint of all files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return _of_named((path.relative_to(folder).as_posix(), of_file(path)) for path in files)


def folder(field: str) -> Digest:
    """Fingerprint of all files below the folder named by `field`, such as a TFDS data set."""

    def digest(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
        return of_folder(local_path(_value(config, field), again=False))

    return digest


def pictures(field: str) -> Digest:
    """Fingerprint of the rows of a data set, and of all pictures that they name.

    Digests of files are cached in the work folder; a file is read again if its size or modification
    time has changed. Of a folder in a bucket with `metadata.jsonl`, only that is fetched as long as
    no file has changed.
    """

    def digest(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
        if field in MADE and made_by(config, field):
            return MADE_HERE
        name = str(_value(config, field)).rstrip("/")
        # Of a bucket, the pictures are not needed yet.
        lazy = is_bucket(name) and local_path(f"{name}/{METADATA}").is_file()
        try:
            source = open_rows(local_path(f"{name}/{METADATA}") if lazy else name)
        except FileNotFoundError as error:
            there = user_path(name).exists()
            raise FileNotFoundError(
                f"config.{field}: {error if there else f'there is no {name}/'}; the rows are "
                "needed to check whether stages are up to date"
            ) from None
        top = name if lazy else str(source.files.folder)
        inside = {file for file in source.files.files if source.files.kind in ("tar", "parquet")}
        files = {file.relative_to(source.files.folder).as_posix() for file in inside}
        named = {_stored_name(top, one) for record in source.records for one in _named(record)}
        found = _digests_below(top, sorted(files | named), workdir / DIGESTS, whole=files)
        rows = hashlib.sha256("\n".join(_rows(source.records)).encode()).hexdigest()
        return _of_named([(METADATA, rows), *found.items()])

    return digest


def photographs(field: str) -> Digest:
    """Fingerprint of a folder of pictures, and of the text files beside them."""

    def digest(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
        if not _value(config, field):
            return NONE
        return _of_named(photograph_digests(config, workdir, field).items())

    return digest


def photograph_digests(
    config: FrozenConfigDict, workdir: pathlib.Path, field: str
) -> dict[str, str]:
    """Name below the folder `field` -> fingerprint, of its pictures and text files.

    Cached in the work folder, as those of `pictures`.

    Raises:
      FileNotFoundError: there is no such folder.
    """
    top = local_path(_value(config, field), again=False)
    if not top.is_dir():
        raise FileNotFoundError(f"config.{field}: there is no folder {_value(config, field)}")
    return _digests_below(str(top), files_below(top, PHOTOGRAPH_FILES), workdir / CURATED)


def file_or_masks(field: str) -> Digest:
    """Fingerprint of the file, or of the PNG files below the folder, that `field` names."""
    of_the_file = file(field)

    def digest(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
        name = _value(config, field)
        top = local_path(name, again=False) if name else None
        if top is None or not top.is_dir():
            return of_the_file(config, workdir)
        names = files_below(top, (".png",))
        return _of_named(_digests_below(str(top), names, workdir / OUTLINES).items())

    return digest


def answers(field: str, folder: str) -> Digest:
    """Fingerprint of people's answers, independent of order, formatting and where they are.

    Args:
      field: names a file of answers, or a folder of such files.
      folder: folder of the questions in the work folder. Its file is read if the field is empty;
        answers about it are also in the database of the annotation server, if there is one.
    """

    def digest(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
        name, web = _value(config, field), config.get("annotate", {}).get("web", {})
        path = local_path(name) if name else workdir / folder / QUESTIONS
        # Only answers count, so questions that the stage itself adds do not change it.
        said = set(what_is_said(path)) if path.exists() else set()
        said |= set(_in_database(web.get("database", ""), workdir, folder))
        if gold := web.get("gold", ""):
            said |= {f"gold {line}" for line in what_is_said(local_path(gold))}
        text = "\n".join(sorted(said))
        return hashlib.sha256(text.encode()).hexdigest()[:16] if text else NONE

    return digest


def _in_database(named: str, workdir: pathlib.Path, folder: str) -> list[str]:
    """What is answered in the database of the annotation server; [] if there is none."""
    if not has_database(named, workdir):
        return []
    from onereward_jax.annotation.server import AnswerDatabase, what_is_stored

    with contextlib.closing(AnswerDatabase(database_url(named, workdir))) as database:
        return list(what_is_stored(database, folder))


def _digests_below(
    top: str, names: Iterable[str], cache: pathlib.Path, *, whole: Collection[str] = ()
) -> dict[str, str]:
    """Name -> fingerprint of files in a folder; only those that have changed are read.

    Those in `whole` are read without taking samples.
    """
    state_of, known = states_below(top), _read_digests(cache)

    def one(name: str) -> tuple[str, list[Any]]:
        state = state_of(name)
        if state is None:
            return name, [0, 0, "missing"]
        before, now = known.get(name), [state.size, state.changed]
        if before and before[:2] == now:
            return name, before
        return name, [*now, of_file(local_path(top, again=False) / name, whole=name in whole)]

    names = list(names)
    unknown = sum(name not in known for name in names)
    with contextlib.ExitStack() as stack:
        bar = None
        if unknown >= MANY:
            bar = stack.enter_context(progress_bar("read files", len(names), unit="file"))
        threads = stack.enter_context(concurrent.futures.ThreadPoolExecutor())
        found = {}
        for name, entry in threads.map(one, names):
            found[name] = entry
            if bar is not None:
                bar.update()
    if found != known and cache.parent.is_dir():
        _write_digests(cache, found)
    return {name: entry[2] for name, entry in found.items()}


def _rows(records: Iterable[Record]) -> Iterable[str]:
    """Normalized, deduplicated rows; the errors of bad ones."""
    return dict.fromkeys(map(_row, records))


def _row(record: Record) -> str:
    if isinstance(record.fields, RowError):
        return str(record.fields)
    row = {name: value for name, value in record.fields.items() if value is not None}
    if record.split is not None:
        row["split of the file"] = record.split
    return json.dumps(row, sort_keys=True)


def _named(record: Record) -> Iterable[str]:
    """The files named in a row; bad rows are reported by the stage."""
    if isinstance(record.fields, RowError):
        return ()
    return [
        value
        for name, value in record.fields.items()
        if field_of(name) in PICTURES and isinstance(value, str)
    ]


def _stored_name(top: str, name: str) -> str:
    """The name that a file has on the disk, where it may have another Unicode form."""
    if is_bucket(top):
        return name
    try:
        path = find_picture(pathlib.Path(top), name)
        return path.relative_to(top).as_posix() if path.is_relative_to(top) else name
    except RowError:
        return name


def _read_digests(path: pathlib.Path) -> dict[str, list[Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # recompute


def _write_digests(path: pathlib.Path, digests: dict[str, list[Any]]) -> None:
    # The work folder is not locked yet: another run may write its digests at the same time.
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
