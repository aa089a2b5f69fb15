"""One value or many: the pictures, texts and numbers of a batch, whatever holds them."""

from __future__ import annotations

import io
import math
import operator
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from onereward_jax.pictures import PictureSource, picture_list

Pictures = Any
"""One picture, a list of pictures or an array with a batch axis, see `as_pictures`."""

Texts = Any
"""A text, or a list or array of texts, see `as_texts`."""

Number = Any
"""A number of Python, numpy or jax, see `as_number` and `as_integer`."""

LONGEST = 40
"""Characters of a value that an error quotes."""

KINDS = "a path, bytes, an opened picture or an array expected"


def as_pictures(value: Pictures, name: str) -> list[PictureSource]:
    """The pictures of an argument.

    Args:
      value: a path, the bytes of a file, a binary file, an opened picture or an array [h, w] or
        [h, w, c]; a list of them; or an array [b, h, w] or [b, h, w, c].
      name: of the argument, in errors.

    Raises:
      ValueError: it is none of these, or empty.
    """
    if value is None or isinstance(value, int | float | dict | set):
        raise ValueError(f"{name} is {_shown(value)}: {KINDS}, or a list of them")
    try:
        pictures = [_picture(one, name) for one in picture_list(_array_or_same(value))]
    except TypeError:
        raise ValueError(f"{name} is {_shown(value)}: {KINDS}, or a list of them") from None
    if not pictures:
        raise ValueError(f"{name} is empty")
    if name != "mask" and len(pictures) == 3 and _is_three_greys(value):
        raise ValueError(
            f"{name} has the shape {tuple(value.shape)}: channels come last, as in [h, w, 3]; "
            "three grey pictures are [3, h, w, 1]"
        )
    return pictures


def _is_three_greys(value: Any) -> bool:
    """Whether an array may be one picture whose channels come first, as in torch."""
    return getattr(value, "ndim", 0) == 3 and value.shape[0] == 3


def _picture(value: Any, name: str) -> PictureSource:
    if not isinstance(value, str | os.PathLike | bytes | Image.Image | np.ndarray):
        raise ValueError(f"{name} holds {_shown(value)}: {KINDS}")
    return value


def _array_or_same(value: Any) -> Any:
    """An array of jax or torch as numpy's, memory and files as bytes; in lists too."""
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, io.IOBase) and value.seekable() and not isinstance(value, io.TextIOBase):
        value.seek(0)
        return value.read()
    if isinstance(value, str | os.PathLike | bytes | Image.Image):
        return value
    if hasattr(value, "__array__"):
        return np.asarray(value)
    return [_array_or_same(one) for one in value] if isinstance(value, Iterable) else value


def as_texts(value: Texts, name: str) -> list[str]:
    """The texts of an argument: one (str or np.str_), or a list or array of them.

    Raises:
      ValueError: it is none of these, or empty.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    single = isinstance(value, str | bytes) or not isinstance(value, Iterable)
    texts = [value] if single else list(value)
    if not texts:
        raise ValueError(f"{name} is empty")
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{name} is {_shown(text)}: text, or a list of texts, expected")
    return [str(text) for text in texts]


def as_integer(value: Number, name: str) -> int:
    """An integer of any type.

    Raises:
      ValueError: it is none.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {_shown(value)}: an integer expected") from None


def as_number(value: Number, name: str) -> float:
    """A finite number of any type.

    Raises:
      ValueError: it is none.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, str):
        raise ValueError(f"{name} is {_shown(value)}: a finite number expected")
    return number


def same_length(**lists: list[Any]) -> list[list[Any]]:
    """The lists, those of one value repeated to the length of the longest.

    Raises:
      ValueError: a list has another length.
    """
    batch = max(map(len, lists.values()))
    for name, values in lists.items():
        if len(values) not in (1, batch):
            raise ValueError(f"{name}: {len(values)} values for a batch of {batch}")
    return [values * (batch if len(values) == 1 else 1) for values in lists.values()]


def only(values: list[Any], name: str) -> Any:
    """The value of a list of one. Raises ValueError for other lists."""
    if len(values) != 1:
        raise ValueError(f"{name} holds {len(values)} values, one expected")
    return values[0]


def _shown(value: Any) -> str:
    """A value in an error, shortened to its type."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"of type {type(value).__name__}"
