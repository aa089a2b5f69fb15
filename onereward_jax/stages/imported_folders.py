"""The preferences folders in `config.reward.preferences`."""

from __future__ import annotations

import hashlib
import pathlib

from ml_collections import FrozenConfigDict

from onereward_jax.annotation.preferences_folder import content_digest
from onereward_jax.storage import local_path

FIELD = "config.reward.preferences"


def imported_folders(config: FrozenConfigDict) -> dict[str, pathlib.Path]:
    """Name in `LabelledPair.folder` -> the folder on this host.

    Raises:
      FileNotFoundError: there is no such folder.
    """
    found = {}
    for place, name in enumerate(filter(None, config.reward.preferences)):
        folder = local_path(name, again=False)
        if not folder.is_dir():
            raise FileNotFoundError(f"{FIELD}: there is no folder {name}")
        found[f"preferences-{place}"] = folder
    return found


def imported_content(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
    """Fingerprint of the folders, of their comparisons and not of their paths.

    Raises:
      FileNotFoundError, ValueError: naming the field and the folder.
    """
    digests = []
    for folder in imported_folders(config).values():
        try:
            digests.append(content_digest(folder))
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{FIELD}: {error}") from error
    digests.sort()
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16] if digests else "none"
