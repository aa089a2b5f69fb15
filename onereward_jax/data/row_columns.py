"""The fields of a row, and the columns that mean them in the files of other programs.

    image    path of the source image
    mask     an image of the same size; white: edit here
    prompt   the prompt; optional for tasks with a fixed prompt
    task     see `tasks.task_named`; fill if it is left out
    target   optional: ground truth of the edit, of the same size
    split    optional: "train" or "test"
    pad      for the command `edit` only: pixels to extend by, instead of a mask

Hugging Face's folders name the image file_name, the mask mask_file_name, the target
target_file_name, and the prompt text or caption. A value that is null, NaN or an empty text is left
out.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from onereward_jax.common.listing import shown
from onereward_jax.data.example import RowError

PICTURES = ("image", "mask", "target")

FIELDS = (*PICTURES, "prompt", "task", "split")

PAD = "pad"

CAPTIONS = ("text", "caption")
"""Columns that are the prompt if there is no column of that name."""

SPELLINGS = (*FIELDS, PAD, "file_name", "mask_file_name", "target_file_name", *CAPTIONS)
"""All columns that mean a field, but for image_file_name."""

ALIKE = 0.8
"""Least similarity of a column to a missing field for it to count as a misspelling."""


def field_of(column: str) -> str | None:
    """The field that a column means; None if it means none."""
    if column in (*FIELDS, PAD):
        return column
    if column in CAPTIONS:
        return "prompt"
    field = column.removesuffix("file_name").removesuffix("_") or "image"
    return field if column.endswith("file_name") and field in PICTURES else None


def named_fields(
    columns: Mapping[str, Any], *, has_others: bool, pads: bool = False
) -> tuple[dict[str, str], list[str]]:
    """(field -> its text, columns that mean none).

    Args:
      columns: the row.
      has_others: columns that mean no field are allowed.
      pads: whether `pad` is a field.

    Raises:
      RowError: a column means no field, and is not allowed or seems misspelt; two columns mean the
        same field; or a value is not a text.
    """
    found: dict[str, str] = {}
    meaning: dict[str, str] = {}
    others = []
    given = {name: value for name, value in columns.items() if not _is_left_out(value)}
    for column, value in given.items():
        field = field_of(column)
        if field is None or (field == PAD and not pads and has_others):
            others.append(column)
        elif field == PAD and not pads:
            raise RowError("pad is for the command edit, training needs a mask")
        elif column in CAPTIONS and "prompt" in given:
            others.append(column)
        else:
            text = _text(column, value)
            if field in found and (field in PICTURES or found[field] != text):
                raise RowError(f"{meaning[field]} and {column} both give the {field}: keep one")
            found[field], meaning[field] = text, column
    unknown = [name for name in columns if name in others or field_of(name) is None]
    known = (*FIELDS, PAD) if pads else FIELDS
    for column in unknown:
        alike = _alike(column, [name for name in known if name not in found])
        if alike or not has_others:
            hint = f" (is it {alike}?)" if alike else ""
            raise RowError(f"unknown field {column!r}{hint}; there are {', '.join(known)}")
    return found, unknown


def _alike(column: str, fields: list[str]) -> str | None:
    """The missing field that a column seems to be a misspelling of."""
    if field_of(column) is not None:
        return None
    spellings = [name for name in SPELLINGS if field_of(name) in fields]
    found = difflib.get_close_matches(column.strip().lower(), spellings, 1, ALIKE)
    return found[0] if found else None


def _is_left_out(value: Any) -> bool:
    """Whether a value is null, NaN or an empty text."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and value != value)


def _text(column: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RowError(f"{column} must be a non-empty string, found {shown(value)}")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise RowError(f"{column} has a lone surrogate: {value!r}")
    return value
