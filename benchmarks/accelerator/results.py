"""Results of a part: one JSON line per figure, written as soon as it is measured."""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from typing import Any

import numpy as np

FILE = "results.jsonl"


class Results:
    """Appends to `results.jsonl` in the folder of results.

    Attributes:
      part: name of the part, in every line.
      tiny: whether everything is as small as possible, to try the script without an accelerator.
    """

    def __init__(self, part: str, description: str) -> None:
        parser = argparse.ArgumentParser(description=description.splitlines()[0])
        parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of results")
        parser.add_argument("--tiny", action="store_true", help="small sizes, for a try on a CPU")
        parser.add_argument("--seconds", type=float, default=240, help="stop to repeat after these")
        arguments = parser.parse_args()
        arguments.out.mkdir(parents=True, exist_ok=True)
        self.part, self.tiny = part, arguments.tiny
        self._path, self._limit = arguments.out / FILE, arguments.seconds
        self._start = time.perf_counter()

    def left(self) -> float:
        """Seconds until the part should end."""
        return self._limit - (time.perf_counter() - self._start)

    def add(self, name: str, **figures: Any) -> None:
        """Writes and prints a line; `at` is seconds since the start of the part."""
        line = {"part": self.part, "name": name, **figures}
        line |= {"tiny": self.tiny, "at": time.perf_counter() - self._start}
        text = json.dumps(line, default=float)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        print(text, flush=True)


def error(found: Any, expected: Any) -> float:
    """|found - expected| / |expected|, in float64."""
    found, expected = (np.asarray(one, np.float64) for one in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
