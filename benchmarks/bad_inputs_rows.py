"""Rows of training and of `edit` whose fields have other values.

The truth is decided here, independently of the reader: `meaning` says what a row means, or that it
has to be refused.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bad_inputs_case import Case, same, sentence
from bad_inputs_row_files import COUNT, WRITERS, Row, into, prepare, read_edits, read_training, rows
from PIL import Image

from onereward_jax.tasks import FIXED_PROMPTS, Task

__all__ = ["cases", "prepare"]

REMOVED = object()
FIELDS = ("image", "mask", "prompt", "task", "split", "target")
TASKS = {
    "fill": Task.FILL, "remove": Task.REMOVAL, "removal": Task.REMOVAL,
    "extend_with_prompt": Task.EXTEND_WITH_PROMPT,
    "extend_without_prompt": Task.EXTEND_WITHOUT_PROMPT,
}  # fmt: skip
VALUES = (
    REMOVED, None, 3, -1, 0, 1.5, float("nan"), float("inf"), 10**400, True, False, "", " ", "x",
    [], ["0.png"], {}, {"path": "0.png"}, "0.png ", "./0.png", "../0.png", "a/../0.png", "/0.png",
    "~/0.png", "C:\\0.png", "a\\0.png", "http://x/0.png", "data:image/png;base64,AAAA", "0.PNG",
    "\ud800.png", "0\0.png", "x" * 300 + ".png", "x" * 70_000, "notes.txt", "folder", "empty.png",
    "half.png", "small.png", "black.png", "a\u2028b", "a\nb", "a\tb", "a\x1b[31mb", "caf\u00e9",
    "cafe\u0301", "\u202ea", "<|endoftext|>", "FILL", "fill ", "Fill", "extend", "remove",
    "removal", "outpaint", "train", "test", "TRAIN", "validation", "nan", "null", "None",
)  # fmt: skip


def cases(root: Path, rng: random.Random) -> Iterator[Case]:
    """All kinds of files."""
    for kind, write in WRITERS.items():
        yield from _of_fields(kind, write, root / "rows", rng)


def _files() -> dict[str, str]:
    """Name of a picture that can be an image -> the file."""
    names = {f"{index}.png": f"{index}.png" for index in range(COUNT)}
    names |= {f"./{index}.png": f"{index}.png" for index in range(COUNT)}
    names["black.png"] = "black.png"
    return names | {
        unicodedata.normalize(form, "caf\u00e9.png"): "0.png" for form in ("NFC", "NFD")
    }


def meaning(row: Row, folder: Path) -> tuple | None:
    """(image, mask, prompt, task, whether it has a target, split); None: refuse it."""
    if row.keys() - set(FIELDS):
        return None
    is_given = lambda value: value.strip() if isinstance(value, str) else value == value
    fields = {name: one for name, one in row.items() if one is not None and is_given(one)}
    if any(not isinstance(value, str) for value in fields.values()):
        return None
    if any("\ud800" <= letter <= "\udfff" for value in fields.values() for letter in value):
        return None
    image, mask = _files().get(fields.get("image")), fields.get("mask")
    target = fields.get("target")
    if image is None or (target is not None and target not in _files()):
        return None
    masks = {f"m{index}.png" for index in range(COUNT)}
    if mask not in masks and _files().get(mask, "black.png") == "black.png":
        return None
    prompt = fields.get("prompt", "")
    name = fields.get("task", "fill")
    if name == "extend":
        task = Task.EXTEND_WITH_PROMPT if prompt else Task.EXTEND_WITHOUT_PROMPT
    else:
        task = TASKS.get(name.strip().lower())
    prompt = prompt or FIXED_PROMPTS.get(task)
    if task is None or prompt is None or fields.get("split") not in ("train", "test", None):
        return None
    pixels = np.asarray(Image.open(folder / image).convert("RGB"))
    white = np.asarray(Image.open(folder / mask)) if mask in masks else None
    return pixels, white, prompt, task, target is not None, fields.get("split")


def _of_fields(
    kind: str, write: Callable[[Path, list[Row]], Path], source: Path, rng: random.Random
) -> Iterator[Case]:
    """Rows with other values, and what they mean."""
    only_text = kind != "JSON lines"
    fields = FIELDS
    if kind in ("Parquet with pictures", "tar"):
        fields = ("prompt", "task", "split")
    for field in (*fields, "Image", "image_path", "x"):
        for number, value in enumerate(VALUES):
            # These files have no other types, or no way to write these characters.
            if only_text and not (value is REMOVED or value is None or isinstance(value, str)):
                continue
            if only_text and isinstance(value, str) and not value.isprintable():
                continue
            found = rows()
            if value is REMOVED:
                found[1].pop(field, None)
            else:
                found[1][field] = value
            name = f"{field} = {'removed' if value is REMOVED else repr(value)[:30]} ({number})"
            yield _row_case(f"{kind}, fields", name, write, source, found)
    for number in range(40):  # several at once
        found = rows()
        for row in rng.sample(found, 3):
            texts = [one for one in VALUES if isinstance(one, str) and one.isprintable()]
            row[rng.choice(fields)] = rng.choice(texts)
        yield _row_case(f"{kind}, fields", f"several, {number}", write, source, found)


def _row_case(
    kind: str, name: str, write: Callable[[Path, list[Row]], Path], source: Path, found: list[Row]
) -> Case:
    # In other files than JSON lines, columns that mean nothing are for other programs.
    known = [_without_others(row) if "JSON" not in kind else row for row in found]
    means = lambda: [meaning(row, source) for row in known]

    def read(folder: Path) -> dict[str, Any]:
        """The rows of training and of `edit`, as far as they are read."""
        into(folder, source)
        path, result, refused = write(folder, found), {}, None
        for what, reader in (("training", read_training), ("edit", read_edits)):
            try:
                result[what] = reader(path)
            except (ValueError, OSError) as error:
                refused = refused or error
                if sentence(error) is None:
                    raise
        if refused and not result:
            raise refused
        return result

    def right(result: dict[str, Any]) -> bool:
        for_edit = [meaning(_for_edit(row), source) for row in known]
        wanted = {"training": means(), "edit": for_edit}
        return all(
            None not in wanted[what] and _agree(result[what], wanted[what]) for what in result
        )

    good = lambda: None not in means() and not any(_is_odd(row) for row in found)
    return Case(f"rows: {kind}", name, read, lambda: right, good)


def _without_others(row: Row) -> Row:
    return {name: value for name, value in row.items() if name in FIELDS}


def _for_edit(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in ("target", "split")}


def _is_odd(row: Row) -> bool:
    """Whether refusing it is right, too: control characters, spaces, words for nothing."""
    texts = [value for value in row.values() if isinstance(value, str)]
    return any(
        not text.isprintable() or text != text.strip() or len(text) > 1000 or "<|" in text
        or text in ("nan", "null", "None")
        for text in texts
    )  # fmt: skip


def _agree(found: list[tuple], means: list[tuple]) -> bool:
    if len(found) != len(means):
        return False
    for one, other in zip(found, means):
        # A photograph as a mask marks something; a split may be drawn, and a prompt be stripped.
        if not same(one[0], other[0]) or (other[1] is not None and not same(one[1], other[1])):
            return False
        if one[2].strip() != other[2].strip():
            return False
        if one[3:5] != other[3:5] or (other[5] and one[5] != other[5]):
            return False
    return True
