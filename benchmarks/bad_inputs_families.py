"""The families of odd inputs: each is a module with `prepare(folder)` and `cases(folder, random)`.

`prepare` writes the intact inputs once; `cases` yields the same cases in every process that calls
it with the same folder and random state.
"""

from __future__ import annotations

import importlib
from types import ModuleType

FAMILIES = (
    "weights",
    "configs",
    "adapters",
    "pictures",
    "rows",
    "row_files",
    "records",
    "settings",
)


def family(name: str) -> ModuleType:
    """The module of a family; imported when it is needed, for some need JAX."""
    return importlib.import_module(f"bad_inputs_{name}")
