"""Objects in a team's pictures, from a segmentation that is given.

Either COCO's instances JSON, with polygons, run lengths (compressed or not) and crowds, or a folder
of PNG masks. Coordinates refer to the upright picture, after its EXIF rotation.
"""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from onereward_jax.common.listing import listed
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.example import RowError
from onereward_jax.data.picture_files import by_letters
from onereward_jax.data.picture_paths import find_picture
from onereward_jax.pictures import RefusedMaskError, read_mask

FARTHEST = 1 << 16
"""Largest coordinate of a polygon in pixels: pycocotools crashes on much larger ones, or NaN."""


@dataclasses.dataclass(frozen=True)
class GivenObject:
    """An outline in a picture.

    Attributes:
      label: name of its category; "" if unknown.
      is_crowd: it is a group of objects.
      segmentation: COCO's polygons or run lengths, or the path of a PNG mask.
    """

    label: str
    is_crowd: bool
    segmentation: Any

    def mask(self, size: Size) -> Bool[np.ndarray, "h w"]:
        """The outline in a picture of height and width `size`.

        Raises:
          RowError: a mask file is unreadable, or of another size; or the outline is empty.
        """
        if isinstance(self.segmentation, Path):
            found = _read_mask(self.segmentation, size)
        else:
            found = coco_mask.decode(_run_lengths(self.segmentation, size)).astype(bool)
        if found.shape != size:
            raise RowError(f"an outline is of a picture of {found.shape[1]}x{found.shape[0]}")
        if not found.any():
            raise RowError("an outline is empty")
        return found


@dataclasses.dataclass(frozen=True)
class GivenPicture:
    """The objects of a picture.

    Attributes:
      size: stated height and width; None if the segmentation does not state it.
      objects: in the order of the file.
    """

    size: Size | None
    objects: Sequence[GivenObject]


def read_segmentation(path: Path, names: Collection[str]) -> dict[str, GivenPicture]:
    """The objects of the pictures that have any.

    Args:
      path: COCO's instances JSON, or a folder of PNG masks: of the picture "a/b.jpg", the mask
        "a/b.png", white where the object is.
      names: pictures that count, as relative paths; others are ignored.

    Raises:
      FileNotFoundError: there is no such file or folder.
      ValueError: it is not a COCO file (all errors are listed), or has none of the pictures.
    """
    if path.is_dir():
        found = _read_folder(path, names)
    elif path.is_file():
        found = _read_coco(path, names)
    else:
        raise FileNotFoundError(f"there is no file or folder {path}")
    if not found:
        raise ValueError(
            f"{path} has an object of none of the pictures: it names them by their path below "
            "config.curate.pictures"
        )
    return found


def _read_folder(folder: Path, names: Collection[str]) -> dict[str, GivenPicture]:
    found = {}
    for name in names:
        try:
            path = find_picture(folder, PurePosixPath(name).with_suffix(".png").as_posix())
        except RowError:
            continue
        found[name] = GivenPicture(None, (GivenObject("", False, path),))
    return found


def _read_coco(path: Path, names: Collection[str]) -> dict[str, GivenPicture]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a COCO file: not a JSON object")
    for part in ("images", "annotations", "categories"):
        if not isinstance(content.get(part), list):
            raise ValueError(f"{path} is not a COCO file: {part} is not a list")
    images = _by_id(path, content["images"], {"file_name": str, "height": int, "width": int})
    categories = _by_id(path, content["categories"], {"name": str})
    of_letters, problems = by_letters(names), []
    named = {
        image: of_letters.get(unicodedata.normalize("NFC", row["file_name"]))
        for image, row in images.items()
    }
    objects: dict[int, list[GivenObject]] = {}
    for number, one in enumerate(content["annotations"]):
        try:
            image, given = _annotation(one, images, categories)
        except (ValueError, TypeError) as error:
            problems.append(f"annotations[{number}]: {error}")
            continue
        if named[image] is not None:
            objects.setdefault(image, []).append(given)
    if problems:
        header = f"{path}: {len(problems)} annotations are not COCO's"
        raise ValueError(header + listed(problems))
    return {
        named[image]: GivenPicture((images[image]["height"], images[image]["width"]), given)
        for image, given in objects.items()
    }


def _by_id(path: Path, rows: Sequence[Any], fields: Mapping[str, type]) -> dict[int, Any]:
    """Rows of images or categories by their id."""
    for row in rows:
        right = isinstance(row, dict) and isinstance(row.get("id"), int)
        if not right or any(not isinstance(row.get(name), kind) for name, kind in fields.items()):
            listing = ", ".join(("id", *fields))
            raise ValueError(f"{path}: {json.dumps(row)[:80]} needs the fields {listing}")
    return {row["id"]: row for row in rows}


def _annotation(
    one: Any, images: Mapping[int, Any], categories: Mapping[int, Any]
) -> tuple[int, GivenObject]:
    """(id of the picture, object) of an annotation. Raises ValueError."""
    if not isinstance(one, dict):
        raise ValueError("not a JSON object")
    for field, known in (("image_id", images), ("category_id", categories)):
        if one.get(field) not in known:
            raise ValueError(f"{field} is {one.get(field)!r}: there is none")
    shape = one.get("segmentation")
    if isinstance(shape, list):
        right = shape and all(
            isinstance(polygon, list)
            and len(polygon) >= 6
            and len(polygon) % 2 == 0
            and all(isinstance(side, int | float) and abs(side) <= FARTHEST for side in polygon)
            for polygon in shape
        )
    else:
        counts = shape.get("counts") if isinstance(shape, dict) else None
        stated = (images[one["image_id"]]["height"], images[one["image_id"]]["width"])
        right = (isinstance(counts, str) and counts != "") or (
            isinstance(counts, list)
            and all(isinstance(run, int) and run >= 0 for run in counts)
            and sum(counts) == stated[0] * stated[1]
        )
        right = right and tuple(shape.get("size", ())) == stated
    if not right:
        raise ValueError("segmentation is neither polygons nor run lengths of the picture's size")
    label = categories[one["category_id"]]["name"].strip()
    return one["image_id"], GivenObject(label, bool(one.get("iscrowd")), shape)


def _run_lengths(shape: Any, size: Size) -> dict[str, Any]:
    """Compressed run lengths of polygons or of any run lengths. Raises RowError."""
    try:
        if isinstance(shape, list):
            return coco_mask.merge(coco_mask.frPyObjects(shape, *size))
        if isinstance(shape["counts"], list):
            return coco_mask.frPyObjects(shape, *size)
        # pycocotools does not notice that run lengths are cut off.
        runs = _uncompressed(shape["counts"])
        if min(runs) < 0 or sum(runs) != size[0] * size[1]:
            raise ValueError("its run lengths do not cover the picture")
        return {"size": list(shape["size"]), "counts": shape["counts"].encode("ascii")}
    except (ValueError, TypeError, IndexError) as error:
        raise RowError(f"an outline cannot be read: {error}") from None


def _uncompressed(text: str) -> list[int]:
    """COCO's compressed run lengths: 5 bits per letter, as differences from the third one on."""
    runs: list[int] = []
    letters = iter(text)
    for letter in letters:
        value, shift = 0, 0
        while True:
            bits = ord(letter) - 48
            value |= (bits & 31) << shift
            shift += 5
            if not bits & 32:
                break
            letter = next(letters, "0")
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


def _read_mask(path: Path, size: Size) -> Bool[np.ndarray, "h w"]:
    try:
        found = np.asarray(read_mask(path, path.name)) >= 128
    except RefusedMaskError as error:
        raise RowError(f"an outline is empty or unclear: {error}") from None
    except (OSError, ValueError) as error:
        why = error.__cause__ or error
        raise RowError(f"the mask {path.name} cannot be read: {why}") from None
    if found.shape != size:
        raise RowError(
            f"the mask {path.name} is {found.shape[1]}x{found.shape[0]} pixels, the picture "
            f"{size[1]}x{size[0]}"
        )
    return found
