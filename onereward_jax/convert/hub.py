"""Resolves the name of a model or file: a path, a path in the package, or the Hugging Face hub."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from onereward_jax.common.user_path import user_path
from onereward_jax.convert.layouts import DIFFUSERS, TRANSFORMERS
from onereward_jax.convert.lora_files import (
    ADAPTER_FILE,
    PEFT_CONFIG,
    PEFT_FILE,
    adapter_file,
    chosen_file,
)
from onereward_jax.parallel.distributed import shared_value
from onereward_jax.storage import is_bucket, local_path

PACKAGE = Path(__file__).parents[1]

WEIGHTS = tuple(
    f"{folder}{basename}{shard}.safetensors"
    for basename in (DIFFUSERS, TRANSFORMERS)
    for shard in ("", "-*-of-*")
    for folder in ("", "*/")
)
"""Names of the weight files that are read. Repositories have more: FLUX.1-Fill-dev also has its
24 GB as a single file of another layout at the top level."""

DOWNLOADED = (*WEIGHTS, ADAPTER_FILE, PEFT_FILE, "*.json", "*.txt", "*.jinja", "*.model", "*.md")
"""Patterns of the files downloaded from the hub: no pickles, no code."""


_PART = r"[\w-][\w.-]*"
_PAGE = re.compile(
    r"^https:/+huggingface\.co/([^/]+/[^/]+)/(?:blob|resolve|tree)/([^/]+)/?([^?]*)(?:\?.*)?$"
)
"""The address of a file or folder, as copied from the hub's pages."""

_ON_THE_HUB = re.compile(
    rf"(?P<repository>{_PART}/{_PART})(@(?P<revision>[\w.-]+))?(/(?P<inside>.+))?"
)


def resolve_folder(name: str | Path, what: str) -> Path:
    """The local folder of a model.

    Tried in order: a path, a path relative to the package, a repository on the hub. Downloads go
    to the hub's cache (HF_HOME) and are found there offline. One process per cache downloads while
    the others wait.

    Args:
      name: the path of a folder; a bucket folder (`gs://bucket/path`), which is copied to this
        host; a path relative to the package (`mini/models/editor`); or `owner/repository` on the
        Hugging Face hub, or a subfolder of it (`owner/repository/folder`). A commit, tag or branch
        may be given (`owner/repository@revision/folder`); the default is the newest commit, the
        same on all processes (see `hub_commit`).
      what: name of the setting in errors, e.g. "config.models.editor" or "--model".

    Raises:
      FileNotFoundError: nothing of that name exists, the hub has no such revision or requires a
        login, or the hub cannot be reached.
    """
    name = _without_address(name)
    if is_bucket(name):
        folder = local_path(name, again=False)
        if not folder.is_dir():
            raise FileNotFoundError(f"{what}: there is no folder {name}")
        return folder
    given = user_path(name)
    for folder in (given, PACKAGE / given):
        if folder.is_dir():
            return folder
    missing = f"{what}: there is no folder {given}"
    repository, revision, inside = _hub_name(name, missing)
    folder = _fetch(repository, revision, download_patterns(inside), missing) / inside
    if not folder.is_dir():
        raise FileNotFoundError(f"{what}: the hub's {repository} has no folder {inside}")
    return folder


def resolve_weights(name: str | Path, what: str) -> Path:
    """A file of weights, or the folder of a model.

    Args:
      name: as in `resolve_folder`, or the path of a file; also of a file of the package, a bucket
        or the hub (`owner/repository/file.safetensors`), of which only that file is downloaded.
      what: name of the setting in errors.

    Raises:
      FileNotFoundError: as `resolve_folder`.
    """
    name = _without_address(name)
    given = local_path(name, again=False)
    for path in (given, PACKAGE / given):
        if path.is_file():
            return path
        if path.is_dir():
            return resolve_folder(name, what)
    missing = f"{what}: there is no file or folder {name}"
    if is_bucket(name):
        raise FileNotFoundError(missing)
    repository, revision, inside = _hub_name(name, missing)
    if repository.endswith(".safetensors"):
        raise FileNotFoundError(missing)
    if not inside.endswith(".safetensors"):
        return resolve_folder(name, what)
    path = _fetch(repository, revision, [glob.escape(inside)], missing) / inside
    if not path.is_file():
        raise FileNotFoundError(f"{what}: the hub's {repository} has no file {inside}")
    return path


def resolve_adapter(name: str | Path, what: str) -> Path:
    """The file of an adapter; see `lora_files.adapter_file` for a folder's.

    Of a repository on the hub, or a folder of it, only the adapter is downloaded.

    Args:
      name: as in `resolve_weights`.
      what: name of the setting in errors.

    Raises:
      FileNotFoundError: as `resolve_weights`, or a folder has no safetensors file.
      ValueError: a folder has several, none of an adapter's usual name.
    """
    name = _without_address(name)
    given = Path(name).expanduser()
    here = any(path.exists() for path in (given, PACKAGE / given))
    if not here and not is_bucket(name) and given.suffix != ".safetensors":
        missing = f"{what}: there is no file or folder {given}"
        repository, revision, inside = _hub_name(name, missing)
        names = _names_on_hub(repository, revision, missing)
        if names is not None:
            chosen = chosen_file(
                [one for one in names if Path(one).parent == Path(inside)],
                f"{what}: the hub's {repository}" + (f"/{inside}" if inside else ""),
            )
            beside = (Path(inside) / PEFT_CONFIG).as_posix()
            patterns = [glob.escape(chosen), glob.escape(beside)]
            return _fetch(repository, revision, patterns, missing) / chosen
    return adapter_file(resolve_weights(name, what))


def hub_commit(folder: Path) -> str | None:
    """The commit of a folder in the hub's cache; None for any other folder."""
    inside = _in_cache(folder)
    return inside[2] if inside else None


def hub_repository(folder: Path) -> str:
    """The repository (owner/name) of a folder in the hub's cache; "" for any other folder."""
    inside = _in_cache(folder)
    return inside[0].removeprefix("models--").replace("--", "/", 1) if inside else ""


def _in_cache(folder: Path) -> tuple[str, ...]:
    """("models--owner--name", "snapshots", commit, ...) of a folder in the hub's cache, or ()."""
    try:
        inside = folder.resolve().relative_to(Path(constants.HF_HUB_CACHE).resolve()).parts
    except ValueError:
        return ()
    return inside if len(inside) > 2 and inside[1] == "snapshots" else ()


def download_patterns(inside: str = "") -> list[str]:
    """Patterns of the files to download, in one folder of a repository or in all of it."""
    return [f"{inside}/{pattern}" if inside else pattern for pattern in DOWNLOADED]


def _starts_here(given: Path) -> bool:
    """Whether the first part of a missing path exists locally: then it is not a hub name."""
    first = given.parts[0]
    return Path(first).exists() or (PACKAGE / first).exists()


def _without_address(name: str | Path) -> str:
    """`owner/repository@revision/path` for the address of a page of the hub; else the name."""
    return _PAGE.sub(r"\1@\2/\3", str(name)).rstrip("/") or str(name)


def _hub_name(name: str | Path, missing: str) -> tuple[str, str | None, str]:
    """Repository, revision and the path in it; `missing` is the error if it is none."""
    given = Path(name).expanduser()
    found = _ON_THE_HUB.fullmatch(given.as_posix())
    if str(name).startswith((".", "~", "/")) or not found or _starts_here(given):
        raise FileNotFoundError(missing)
    return found["repository"], found["revision"], found["inside"] or ""


def _names_on_hub(repository: str, revision: str | None, missing: str) -> list[str] | None:
    """All files of a repository; None without a network, where only the cache can tell."""
    with _told(repository, revision, missing):
        try:
            return HfApi().list_repo_files(repository, revision=revision)
        except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError):
            raise
        except (OSError, HTTPError):
            return None


def _fetch(repository: str, revision: str | None, patterns: list[str], missing: str) -> Path:
    """Downloads files of a repository; returns its folder in the hub's cache."""

    def commit() -> str:
        return HfApi().resolve_revision(repository, revision=revision).resolved

    with _told(repository, revision, missing):
        # All processes must read the same commit, even if the branch moves meanwhile.
        at = shared_value(f"commit of {repository}@{revision or ''}".replace("/", " "), commit)
        with _one_at_a_time(repository):
            return Path(snapshot_download(repository, revision=at, allow_patterns=patterns))


@contextlib.contextmanager
def _told(repository: str, revision: str | None, missing: str) -> Iterator[None]:
    """Raises the hub's errors as sentences that say what to do."""
    try:
        yield
    except GatedRepoError as error:
        raise FileNotFoundError(
            f"{missing}, and {repository} on the Hugging Face hub is gated: accept its terms at "
            f"https://huggingface.co/{repository}, then set HF_TOKEN to your token on every host "
            "(or run `hf auth login` there)"
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{missing}, and the Hugging Face hub has no repository {repository} that you may read "
            "(a private one needs HF_TOKEN set on every host)"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{missing}, and {repository} on the Hugging Face hub has no revision {revision}"
        ) from error
    except (OSError, HTTPError, RevisionResolutionError) as error:
        raise FileNotFoundError(
            f"{missing}, and the Hugging Face hub, where {repository} may be, cannot be reached: "
            "name a local folder, or try again with a network"
        ) from error


@contextlib.contextmanager
def _one_at_a_time(repository: str) -> Iterator[None]:
    """A lock per shared cache; the kernel releases it if its holder dies."""
    path = Path(constants.HF_HUB_CACHE) / ".locks" / f"{repository.replace('/', '--')}.onereward"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a read-only cache needs no lock
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(path.open("a")), fcntl.LOCK_EX)
        yield
