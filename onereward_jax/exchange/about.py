"""`about.json` next to other formats, so that licence and origin travel with the data."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from onereward_jax import __version__
from onereward_jax.annotation.comparisons import ABOUT, VERSION
from onereward_jax.exchange.options import Source


class About(NamedTuple):
    """What an `about.json` says about its data."""

    license: str = ""
    origin: Mapping[str, Any] = {}


def write_about(folder: pathlib.Path, source: Source) -> None:
    """Writes the file."""
    about = {
        "schema": VERSION,
        "written_by": f"onereward_jax {__version__}",
        "license": source.license,
        "origin": dict(source.origin),
    }
    text = json.dumps(about, indent=1, ensure_ascii=False)
    (folder / ABOUT).write_text(text, encoding="utf-8")


def read_about_beside(path: pathlib.Path) -> About:
    """What the file in a folder, or next to a file, says; empty if there is none."""
    file = (path if path.is_dir() else path.parent) / ABOUT
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        license, origin = found.get("license", ""), found.get("origin", {})
    except (OSError, ValueError, AttributeError, RecursionError):
        return About()
    return About(str(license), origin if isinstance(origin, dict) else {})
