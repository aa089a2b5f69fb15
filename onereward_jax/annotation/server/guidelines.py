"""What annotators read about a dimension: its meaning, a guideline, and example pictures.

The folder `config.annotate.web.guidelines` has, for each dimension, `<dimension>.md`, a text, and
pictures `<dimension>-good-<anything>.png` and `<dimension>-bad-<anything>.png` (or .jpg, .webp).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onereward_jax.annotation.question_page import MEANINGS
from onereward_jax.annotation.questions import OVERALL, USABLE
from onereward_jax.tasks import Dimension

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def check_guidelines(folder: Path | None) -> None:
    """Raises FileNotFoundError or ValueError if the folder does not exist or has other files."""
    if folder is None:
        return
    if not folder.is_dir():
        raise FileNotFoundError(f"config.annotate.web.guidelines: there is no folder {folder}")
    known = [*Dimension, OVERALL, USABLE]
    for path in folder.iterdir():
        if path.suffix in (".md", *PICTURES):
            if path.stem.split("-")[0] not in known:
                raise ValueError(
                    f"config.annotate.web.guidelines: {path} does not begin with the name of a "
                    f"dimension: {', '.join(known)}"
                )


def guideline_pictures(folder: Path | None) -> dict[str, Path]:
    """File name -> example picture."""
    if folder is None:
        return {}
    return {path.name: path for path in sorted(folder.iterdir()) if path.suffix in PICTURES}


def guidelines(folder: Path | None) -> dict[str, dict[str, Any]]:
    """Dimension -> title, meaning, guideline (Markdown, shown as text), example pictures."""
    pictures, found = guideline_pictures(folder), {}
    for dimension in (*Dimension, OVERALL, USABLE):
        text = folder / f"{dimension}.md" if folder else None
        found[str(dimension)] = {
            "title": str(dimension).replace("_", " "),
            "meaning": MEANINGS.get(dimension, ""),
            "guideline": text.read_text("utf-8") if text and text.is_file() else "",
            **{
                kind: [
                    f"/guideline-pictures/{name}"
                    for name in pictures
                    if name.startswith(f"{dimension}-{kind}")
                ]
                for kind in ("good", "bad")
            },
        }
    return found
