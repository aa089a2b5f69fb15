"""What a team says about its pictures: words with their boxes, and captions.

    words, JSON lines      {"picture": "shops/a.jpg", "box": [120, 40, 200, 60], "text": "SALE"}
    captions, JSON lines   {"picture": "shops/a.jpg", "caption": "a shop window in winter"}
    a caption beside it    shops/a.txt

picture   path below the folder of pictures
box       [x, y, width, height] in pixels of the upright picture, as in COCO
"""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from onereward_jax.common.json_lines import json_lines, json_object
from onereward_jax.common.listing import listed
from onereward_jax.data.boxes import Box
from onereward_jax.data.picture_files import by_letters

LONGEST_CAPTION = 2000
"""Characters."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Word:
    """A written word in a picture.

    Attributes:
      box: (y0, x0, y1, x1) in pixels, half-open.
      text: the word.
    """

    box: Box
    text: str


def read_words(path: Path, names: Collection[str]) -> dict[str, list[Word]]:
    """The words of the pictures in `names`; lines of other pictures are ignored.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: lines are bad (all are listed), or none is of these pictures.
    """
    found: dict[str, list[Word]] = {}
    for name, word in _read_lines(path, names, ("box", "text"), _word):
        found.setdefault(name, []).append(word)
    return found


def read_captions(path: Path, names: Collection[str]) -> dict[str, str]:
    """The captions of the pictures in `names`; raises as `read_words`."""
    return dict(_read_lines(path, names, ("caption",), lambda row: one_line(row["caption"])))


def caption_beside(picture: Path) -> str:
    """The text of the .txt file beside a picture, on one line; "" if there is none.

    Raises:
      ValueError: it is not UTF-8, or longer than `LONGEST_CAPTION`.
    """
    path = picture.with_suffix(".txt")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not UTF-8") from None
    try:
        return one_line(text) if text.strip() else ""
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def one_line(text: Any) -> str:
    """A text with single spaces only. Raises ValueError if it is empty, or too long."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"a non-empty text expected, found {text!r}")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("the text has a lone surrogate")
    if len(text := " ".join(text.split())) > LONGEST_CAPTION:
        raise ValueError(f"the text has {len(text)} characters, at most {LONGEST_CAPTION} expected")
    return text


def _word(row: dict[str, Any]) -> Word:
    box = row["box"]
    numbers = isinstance(box, list) and len(box) == 4
    if not numbers or not all(
        isinstance(side, int | float) and math.isfinite(side) for side in box
    ):
        raise ValueError(f"box is {box!r}, [x, y, width, height] expected")
    x, y, width, height = box
    if min(width, height) <= 0:
        raise ValueError(f"box is {box!r}: its width and height must be above 0")
    edges = (math.floor(y), math.floor(x), math.ceil(y + height), math.ceil(x + width))
    return Word(edges, one_line(row["text"]))


def _read_lines(
    path: Path, names: Collection[str], fields: tuple[str, ...], parse: Callable[[Any], T]
) -> Iterator[tuple[str, T]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    of_letters, problems, found = by_letters(names), [], []
    for number, line in json_lines(path):
        try:
            row = json_object(line)
            if not isinstance(row.get("picture"), str):
                raise ValueError("a JSON object with the field picture expected")
            if missing := [name for name in fields if row.get(name) is None]:
                raise ValueError(f"{missing[0]} is missing")
            parsed = parse(row)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        picture = of_letters.get(unicodedata.normalize("NFC", row["picture"]))
        if picture is not None:
            found.append((picture, parsed))
    if problems:
        raise ValueError(f"{path}: {len(problems)} bad lines" + listed(problems))
    if not found:
        raise ValueError(
            f"{path} names none of the pictures: it names them by their path below "
            "config.curate.pictures"
        )
    return iter(found)
