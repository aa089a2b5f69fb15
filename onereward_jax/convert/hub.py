"""Where a model comes from: a local folder, one of the package, or the Hugging Face hub."""

from __future__ import annotations

import contextlib
import fcntl
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

from onereward_jax.convert.layouts import DIFFUSERS, TRANSFORMERS
from onereward_jax.convert.lora_files import ADAPTER_FILE, PEFT_FILE
from onereward_jax.parallel.distributed import shared_value
from onereward_jax.storage import is_bucket, local_path

PACKAGE = Path(__file__).parents[1]

WEIGHTS = tuple(
    f"{folder}{basename}{shard}.safetensors"
    for basename in (DIFFUSERS, TRANSFORMERS)
    for shard in ("", "-*-of-*")
    for folder in ("", "*/")
)
"""Weight files under the names that are read here. Repositories hold more: FLUX.1-Fill-dev has its
24 GB a second time, in one file of another layout at its top."""

WANTED = (*WEIGHTS, ADAPTER_FILE, PEFT_FILE, "*.json", "*.txt", "*.jinja", "*.model", "*.md")
"""What is fetched from the hub: no pickles, no code."""


_PART = r"[\w-][\w.-]*"
_ON_THE_HUB = re.compile(
    rf"(?P<repository>{_PART}/{_PART})(@(?P<revision>[\w.-]+))?(/(?P<inside>.+))?"
)


def resolve_folder(name: str | Path, what: str) -> Path:
    """The local folder of a model.

    Args:
      name: the path of a folder; one of a bucket (`gs://bucket/path`), which is copied to this
        host; one relative to the package (`mini/models/editor`); or
        `owner/repository` on the Hugging Face hub, with a folder of it where the model is not at
        its top (`owner/repository/folder`). The first that exists is taken. A commit, tag or branch
        may be named (`owner/repository@revision/folder`); otherwise it is the newest commit, the
        same in all processes of a run (see `hub_commit`). What the hub sends is kept in its cache
        (the environment's HF_HOME), and is found there without a network. Of the processes that
        share a cache one downloads while the others wait.
      what: names the setting in errors, such as "config.models.editor" or "--model".

    Raises:
      FileNotFoundError: none of the three exists, the hub has no such revision or wants a log-in,
        or it cannot be reached.
    """
    if is_bucket(name):
        folder = local_path(name, again=False)
        if not folder.is_dir():
            raise FileNotFoundError(f"{what}: there is no folder {name}")
        return folder
    given = Path(name).expanduser()
    for folder in (given, PACKAGE / given):
        if folder.is_dir():
            return folder
    found = _ON_THE_HUB.fullmatch(given.as_posix())
    if str(name).startswith((".", "~", "/")) or not found or _starts_here(given):
        raise FileNotFoundError(f"{what}: there is no folder {given}")
    repository, inside = found["repository"], found["inside"] or ""
    missing = f"{what}: there is no folder {given}"
    folder = _fetch(repository, found["revision"], inside, missing) / inside
    if not folder.is_dir():
        raise FileNotFoundError(f"{what}: the hub's {repository} has no folder {inside}")
    return folder


def hub_commit(folder: Path) -> str | None:
    """The commit that a folder of the hub's cache holds; None for any other folder."""
    try:
        inside = folder.resolve().relative_to(Path(constants.HF_HUB_CACHE).resolve()).parts
    except ValueError:
        return None
    return inside[2] if len(inside) > 2 and inside[1] == "snapshots" else None


def resolve_adapter(name: str | Path, what: str) -> Path:
    """The file of an adapter, or the local folder that holds it; else as `resolve_folder`."""
    given = local_path(name)
    return given if given.is_file() else resolve_folder(name, what)


def wanted_files(inside: str = "") -> list[str]:
    """Patterns of the files that are fetched, of one folder of a repository or of all of it."""
    return [f"{inside}/{pattern}" if inside else pattern for pattern in WANTED]


def _starts_here(given: Path) -> bool:
    """Whether the start of a path that does not exist does exist: it is not meant as the hub's."""
    first = given.parts[0]
    return Path(first).exists() or (PACKAGE / first).exists()


def _fetch(repository: str, revision: str | None, inside: str, missing: str) -> Path:
    """The folder in the cache, complete."""

    def commit() -> str:
        return HfApi().resolve_revision(repository, revision=revision).resolved

    place = f"https://huggingface.co/{repository}"
    try:
        # Of a branch that moves meanwhile no two processes may read two commits.
        at = shared_value(f"commit of {repository}@{revision or ''}".replace("/", " "), commit)
        with _one_at_a_time(repository):
            return Path(
                snapshot_download(repository, revision=at, allow_patterns=wanted_files(inside))
            )
    except GatedRepoError as error:
        raise FileNotFoundError(
            f"{missing}, and {repository} on the Hugging Face hub is gated: accept its terms at "
            f"{place}, then set HF_TOKEN to your token on every host (or run `hf auth login` there)"
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{missing}, and the Hugging Face hub has no repository {repository} that you may read "
            "(a private one wants HF_TOKEN set on every host)"
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
    """Held by one process of those that share the cache; the kernel frees it when that one dies."""
    path = Path(constants.HF_HUB_CACHE) / ".locks" / f"{repository.replace('/', '--')}.onereward"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a cache that is only read needs no lock
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(path.open("a")), fcntl.LOCK_EX)
        yield
