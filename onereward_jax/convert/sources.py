"""Where a model comes from: a local folder, one of the package, or the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError

from onereward_jax.convert.layouts import DIFFUSERS, TRANSFORMERS
from onereward_jax.convert.lora import ADAPTER_FILE, PEFT_FILE

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


def resolve_folder(name: str | Path, what: str) -> Path:
    """The local folder of a model.

    Args:
      name: the path of a folder; one relative to the package (`mini_models/editor`); or
        `owner/repository` on the Hugging Face hub, with a folder of it where the model is not at
        its top (`owner/repository/folder`). The first that exists is taken. What the hub sends is
        kept in its cache (the environment's HF_HOME), and is found there without a network.
      what: names the setting in errors, such as "config.models.editor" or "--model".

    Raises:
      FileNotFoundError: none of the three exists, the hub wants a log-in, or it cannot be reached.
    """
    given = Path(name).expanduser()
    for folder in (given, PACKAGE / given):
        if folder.is_dir():
            return folder
    parts = given.parts
    if str(name).startswith((".", "~", "/")) or not _may_be_repository(parts):
        raise FileNotFoundError(f"{what}: there is no folder {given}")
    repository, inside = "/".join(parts[:2]), "/".join(parts[2:])
    folder = _fetch(repository, inside, f"{what}: there is no folder {given}") / inside
    if not folder.is_dir():
        raise FileNotFoundError(f"{what}: the hub's {repository} has no folder {inside}")
    return folder


def resolve_adapter(name: str | Path, what: str) -> Path:
    """The file of an adapter, or the local folder that holds it; else as `resolve_folder`."""
    given = Path(name).expanduser()
    return given if given.is_file() else resolve_folder(name, what)


def wanted_files(inside: str = "") -> list[str]:
    """Patterns of the files that are fetched, of one folder of a repository or of all of it."""
    return [f"{inside}/{pattern}" if inside else pattern for pattern in WANTED]


def _may_be_repository(parts: tuple[str, ...]) -> bool:
    """Whether a path that does not exist can be meant as the hub's: not if its start exists."""
    if len(parts) < 2 or any(not re.fullmatch(r"[\w-][\w.-]*", part) for part in parts[:2]):
        return False
    return not Path(parts[0]).exists() and not (PACKAGE / parts[0]).exists()


def _fetch(repository: str, inside: str, missing: str) -> Path:
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted_files(inside)))
    except GatedRepoError as error:
        raise FileNotFoundError(
            f"{missing}, and {repository} on the Hugging Face hub wants its terms accepted there "
            "and a log-in here (hf auth login)"
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{missing}, and the Hugging Face hub has no repository {repository} that you may read"
        ) from error
    except (OSError, HTTPError) as error:
        raise FileNotFoundError(
            f"{missing}, and the Hugging Face hub, where {repository} may be, cannot be reached: "
            "name a local folder, or try again with a network"
        ) from error
