"""The chosen pictures as a data folder, as the stage `data` and people's own tools read it.

    metadata.jsonl              see `data.metadata`
    images/0007/cat-5f1c0a2b.jpg    the original file: a hard link, or a copy on another disk
    masks/0007/cat-5f1c0a2b-0.png   white: edit here

Each cluster has its folder. A name ends with the beginning of the file's digest, so pictures of
equal names stay apart.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.curation.draw_triplets import Drawn
from onereward_jax.curation.mask_makers import Mask
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.example import RowError, Split
from onereward_jax.data.folder_source import mask_once_cropped
from onereward_jax.data.row_files import METADATA

FOLDERS = ("images", "masks")

USABLE = (0.002, 0.9)
"""Range of the share of a picture that is masked once `data` has cropped it."""


@dataclasses.dataclass(frozen=True)
class ChosenPicture:
    """A picture that is kept.

    Attributes:
      name: path below the folder of pictures.
      file: the file.
      digest: of the file.
      cluster: its cluster.
      split: stated split; None to let `data` draw it.
    """

    name: str
    file: Path
    digest: str
    cluster: int
    split: Split | None = None

    @property
    def stem(self) -> str:
        """Folder and name, without suffix, in the data folder."""
        return f"{self.cluster:04}/{PurePosixPath(self.name).stem}-{self.digest[:8]}"

    @property
    def image(self) -> str:
        """Path of the picture in the data folder."""
        return f"images/{self.stem}{PurePosixPath(self.name).suffix.lower()}"


@dataclasses.dataclass(frozen=True)
class Row:
    """A triplet of the data folder: the line of its metadata, and what the sheet shows.

    Attributes:
      fields: the line.
      kind: kind of the mask.
      chosen: its picture.
    """

    fields: dict[str, Any]
    kind: str
    chosen: ChosenPicture


def clear_data_folder(folder: Path) -> None:
    """Removes the triplets of an earlier run."""
    (folder / METADATA).unlink(missing_ok=True)
    for name in FOLDERS:
        if (folder / name).exists():
            shutil.rmtree(folder / name)


def write_triplets(folder: Path, chosen: ChosenPicture, drawn: Sequence[Drawn]) -> list[Row]:
    """Writes the image and the masks of a picture; returns its rows. Thread-safe."""
    image = folder / chosen.image
    image.parent.mkdir(parents=True, exist_ok=True)
    _link(chosen.file, image)
    rows = []
    for number, one in enumerate(drawn):
        mask = f"masks/{chosen.stem}-{number}.png"
        (folder / mask).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one.mask).save(folder / mask)  # 1 bit per pixel
        fields = {"image": chosen.image, "mask": mask, "task": one.task.value}
        optional = {
            "prompt": one.prompt,
            "target": chosen.image if one.has_target else None,
            "split": chosen.split,
        }
        fields |= {name: value for name, value in optional.items() if value is not None}
        rows.append(Row(fields, one.kind, chosen))
    return rows


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes JSON lines, atomically."""
    with atomic_file(path, sync=True) as draft, draft.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def is_usable(mask: Mask, sizes: Sequence[Size]) -> bool:
    """Whether `data` accepts a mask: it crops the picture to a bucket, around the mask.

    Args:
      mask: of the whole picture.
      sizes: the buckets.
    """
    try:
        share = float(mask_once_cropped(Image.fromarray(mask).convert("L"), sizes).mean())
    except RowError:
        return False
    return USABLE[0] <= share <= USABLE[1]


def _link(source: Path, target: Path) -> None:
    """A hard link to the file, or a copy where there cannot be one."""
    source = Path(os.path.realpath(source))
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
