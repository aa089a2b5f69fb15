"""Further editors that people compare with the base, from `config.evaluate.editors`.

Each entry is "name=folder": the folder or file of a transformer or an adapter, whose images are
generated here, or a folder of finished images from elsewhere, named after the triplets
(`<id>.png`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ml_collections import FrozenConfigDict

from onereward_jax.chain import fingerprints
from onereward_jax.chain.allowed_values import EDITOR
from onereward_jax.convert import is_adapter, read_single_file, resolve_weights
from onereward_jax.data.picture_files import files_below

FIELD = "config.evaluate.editors"

PIPELINE_INDEX = "model_index.json"
"""In the folder of a whole editor."""

_OWN = ("base", "policy")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclasses.dataclass(frozen=True)
class OtherEditor:
    """An editor to compare with the base.

    Attributes:
      name: its name in the report.
      folder: its transformer, its adapter, or its images.
      finished: whether the folder has images instead of weights.
    """

    name: str
    folder: Path
    finished: bool

    @property
    def digest(self) -> str:
        """Fingerprint of the folder's content."""
        of = fingerprints.of_folder if self.finished else fingerprints.of_model
        return of(self.folder)

    def images(self) -> dict[str, Path]:
        """The images in the folder, by name of the triplet.

        Raises:
          ValueError: there are two of a triplet.
        """
        found: dict[str, Path] = {}
        for path in _images_in(self.folder):
            if path.stem in found:
                both = f"{found[path.stem].name} and {path.name}"
                raise ValueError(f"{FIELD}: {self.folder} has {both}: keep one of them")
            found[path.stem] = path
        return found


def other_editors(config: FrozenConfigDict) -> list[OtherEditor]:
    """The editors of the config, in this order.

    Raises:
      FileNotFoundError, ValueError: as `named_editors`.
    """
    return named_editors(config.evaluate.editors, FIELD)


def named_editors(
    entries: Sequence[str], field: str, *, pipelines: bool = False
) -> list[OtherEditor]:
    """The editors of entries "name=folder", in this order.

    Args:
      entries: each matches `allowed_values.EDITOR`.
      field: the config field, for errors.
      pipelines: folders of whole editors are allowed too, and images in subfolders.

    Raises:
      ValueError: a name occurs twice, or a folder has neither weights nor images.
      FileNotFoundError: there is no such folder.
    """
    editors: dict[str, OtherEditor] = {}
    for entry in entries:
        name, path = EDITOR.fullmatch(entry).groups()
        if name in editors or name in _OWN:
            raise ValueError(f"{field}: there are two editors named {name!r}")
        folder = resolve_weights(path, field)
        weights = is_adapter(folder) or (folder / "config.json").is_file()
        weights = weights or (pipelines and (folder / PIPELINE_INDEX).is_file())
        if folder.is_file() and not weights:
            read_single_file(folder)  # raises for what is not a transformer
            weights = True
        if not weights and not (
            files_below(folder, _SUFFIXES) if pipelines else _images_in(folder)
        ):
            raise ValueError(
                f"{field}: {folder} has neither a transformer (config.json), an adapter nor images"
            )
        editors[name] = OtherEditor(name, folder, finished=not weights)
    return list(editors.values())


def digest_of_editors(config: FrozenConfigDict, workdir: Path) -> str:
    """Fingerprint of all of them, by content."""
    told = (f"{one.name}={one.digest}" for one in other_editors(config))
    return " ".join(told) or fingerprints.NONE


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
