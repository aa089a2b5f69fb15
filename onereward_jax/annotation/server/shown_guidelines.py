"""The guidelines as the page reads them, and the files of their example pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from onereward_jax.annotation.guidelines import read_guidelines


def guidelines(folder: Path | None) -> dict[str, dict[str, Any]]:
    """Dimension -> title, meaning, guideline, and URLs of good and bad examples."""
    return {
        name: one.to_json(lambda path: f"/guideline-pictures/{quote(path.name)}")
        for name, one in read_guidelines(folder or "").items()
    }


def guideline_pictures(folder: Path | None) -> dict[str, Path]:
    """File name -> example picture."""
    found = read_guidelines(folder or "").values()
    return {path.name: path for one in found for path in (*one.good, *one.bad)}
