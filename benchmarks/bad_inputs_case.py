"""One odd input: how it is read, what is right, and what happened."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from onereward_jax.common.user_errors import in_words, is_user_error

Verdict = Literal["refused", "right", "wrong", "strict", "traceback", "crash"]
BAD = ("wrong", "strict", "traceback", "crash")
"""Verdicts that must not occur."""

LONGEST = 25
"""Lines of an error; a longer listing is not capped."""


@dataclasses.dataclass(frozen=True)
class Case:
    """An input.

    Attributes:
      kind: its row of the table, "family: kind".
      name: unique within the kind; the same in every run with the same seed.
      read: writes it into an empty folder and reads it as the commands do.
      truth: returns what reading may give, as a value or as a predicate of the result; None: it
        must be refused.
      good: returns whether it must be read; or that itself.
    """

    kind: str
    name: str
    read: Callable[[Path], Any]
    truth: Callable[[], Any] | None = None
    good: bool | Callable[[], bool] = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What happened.

    Attributes:
      kind, name: of the case.
      verdict: see `benchmarks/bad_inputs.py`.
      lines: lines of the error that a command would print; 0 for none.
      detail: the error or the result, for the reader.
    """

    kind: str
    name: str
    verdict: Verdict
    lines: int
    detail: str


def run_case(case: Case, folder: Path) -> Outcome:
    """Reads a case in an empty folder and judges the result."""

    def outcome(verdict: Verdict, detail: str, lines: int = 0) -> Outcome:
        return Outcome(case.kind, case.name, verdict, lines, detail)

    try:
        found = case.read(folder)
    except (ValueError, OSError, ModuleNotFoundError, SystemExit) as error:
        words = sentence(error)
        if words is None:
            return outcome("traceback", _short_traceback(error))
        lines = len(words.splitlines())
        if lines > LONGEST or not words.strip():
            return outcome("traceback", f"an error of {lines} lines: {words[:1000]}", lines)
        good = case.good() if callable(case.good) else case.good
        return outcome("strict" if good else "refused", words, lines)
    except BaseException as error:  # noqa: BLE001  panics of Rust libraries are no `Exception`
        return outcome("traceback", _short_traceback(error))
    if case.truth is None:
        return outcome("wrong", f"read as {_summary(found)}, to be refused")
    truth = case.truth()
    right = truth(found) if callable(truth) else same(found, truth)
    return outcome("right" if right else "wrong", f"read as {_summary(found)}")


def same(one: Any, other: Any) -> bool:
    """Whether two results are equal: nested containers, dataclasses, arrays (NaN equals NaN)."""
    if dataclasses.is_dataclass(one) and type(one) is type(other):
        return same(vars(one), vars(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "shape") or hasattr(other, "shape"):
        one, other = np.asarray(one), np.asarray(other)
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return one.tobytes() == other.tobytes() or bool(np.array_equal(one, other))
    return bool(one == other)


def sentence(error: BaseException) -> str | None:
    """What a command prints for an error; None if it shows a traceback."""
    if isinstance(error, SystemExit):  # argparse and absl have printed their sentence
        return str(error.__cause__ or error.__context__ or error.code)
    return in_words(error) if is_user_error(error) else None


def _short_traceback(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {last.filename}:{last.lineno}: {str(error)[:500]}"


def _summary(found: Any) -> str:
    if isinstance(found, dict):
        return "{" + ", ".join(f"{key}: {_summary(found[key])}" for key in list(found)[:12]) + "}"
    if hasattr(found, "shape"):
        array = np.asarray(found)
        return f"{array.dtype}{list(array.shape)} {array.ravel()[:4].tolist()}"
    return repr(found)[:300]
