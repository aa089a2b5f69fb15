"""What annotators are told about each dimension: a sentence, a guideline, example pictures.

The package has a text for each dimension of the paper (Section 3), for "overall" and for "usable".
A team's folder replaces or adds to them:

    structure.md  or  structure.txt      plain text: paragraphs, and lists of lines with "- "
    structure-good-1.png                 an example that is good in this dimension
    structure-bad-glued_edge.jpg         an example that is bad in it

Dimensions of your own (`task_file`) have only the words of their file until the folder has a text.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onereward_jax.annotation.questions import OVERALL, USABLE
from onereward_jax.common.listing import listed
from onereward_jax.pictures import read_picture
from onereward_jax.tasks import OWN, Dimension

ASKED = (*(one.value for one in Dimension), OVERALL, USABLE)
"""All dimensions that people can be asked about."""

LONGEST_TEXT = 10_000
"""Characters of a text."""

_TEXT = re.compile(r"(?P<dimension>[a-z0-9_]+)\.(md|txt)")
_PICTURE = re.compile(r"(?P<dimension>[a-z0-9_]+)-(?P<side>good|bad)-.+\.(png|jpg|jpeg)")
_NAMES = "<dimension>.md, <dimension>.txt, <dimension>-good-*.png or .jpg, <dimension>-bad-*"

MEANINGS = {
    Dimension.STRUCTURE: "Spatial and geometric coherence with the original layout.",
    Dimension.CONSISTENCY: "Colour, texture and light blend with the surroundings.",
    Dimension.TEXT_ALIGNMENT: "Identity, attributes and position that the prompt asks for.",
    Dimension.AESTHETICS: "Overall appeal.",
    Dimension.REMOVAL_QUALITY: "The object is gone, the area is clean, nothing is invented there.",
    OVERALL: "The image as a whole.",
    USABLE: "Would you use this image as it is?",
    **OWN.dimensions,
}
"""One sentence per dimension."""

TEXTS = {
    Dimension.STRUCTURE: """\
Look at shapes, perspective and where things meet.

Counts:
- lines and edges continue across the border of the edited area
- size, perspective and position fit the scene
- bodies, hands, faces, letters and objects have their right parts

Does not count:
- colour and light: that is consistency
- whether it is what the prompt asks for: that is text alignment""",
    Dimension.CONSISTENCY: """\
Look at the border of the edited area and at the light. Zoom in; flicker against the source.

Counts:
- no seam, halo or blur at the border
- colours, grain and sharpness as in the rest of the image
- shadows and reflections fit the light of the scene

Does not count:
- wrong shapes: that is structure
- how beautiful it is: that is aesthetics""",
    Dimension.TEXT_ALIGNMENT: """\
Read the prompt, then look only at what it asks for.

Counts:
- the right thing, in the right number
- its attributes: colour, material, action, style
- its position, if the prompt names one
- words to be drawn: every letter, in the right order

Does not count:
- how well it is painted or blended""",
    Dimension.AESTHETICS: """\
Which image would you rather show to somebody? Look at the whole image.

Counts:
- composition, colour, light, detail
- artefacts that spoil the impression

Does not count:
- whether it follows the prompt: a beautiful wrong object is still beautiful""",
    Dimension.REMOVAL_QUALITY: """\
The object under the mask has to go, as if it had never been there.

Counts:
- all of it is gone, with its shadow and reflection
- the background continues naturally, without smears or repeated patches
- nothing new is invented in its place

Does not count:
- anything outside the mask, unless it has changed""",
    OVERALL: """\
Everything together, as a user who asked for this edit would judge it.

Choose "no difference" only if you would be content with either one.""",
    USABLE: """\
Yes: you would use the image for the purpose of the prompt without another try.

No: a visible mistake, a wrong or missing object, or a seam would make you try again.

Small faults that you only find after zooming in do not count.""",
}
"""The guideline of each dimension of the package."""


@dataclasses.dataclass(frozen=True)
class Guideline:
    """What annotators are told about a dimension.

    Attributes:
      title: its name in words.
      meaning: one sentence.
      text: plain text; paragraphs, and lists of lines that start with "- "; "": none.
      good, bad: paths of example pictures.
    """

    title: str
    meaning: str
    text: str
    good: tuple[Path, ...] = ()
    bad: tuple[Path, ...] = ()

    def to_json(self, address: Callable[[Path], str]) -> dict[str, Any]:
        """The fields for the page; `address` gives the URL of a picture."""
        return {
            "title": self.title,
            "meaning": self.meaning,
            "guideline": self.text,
            "good": [address(path) for path in self.good],
            "bad": [address(path) for path in self.bad],
        }


def read_guidelines(folder: str | Path = "") -> dict[str, Guideline]:
    """The guideline of each dimension in `ASKED`.

    Args:
      folder: a team's folder, see the module docstring; "": the texts of the package.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: naming every file that cannot be used, with the reason.
    """
    found = {
        name: Guideline(name.replace("_", " "), MEANINGS[name], TEXTS.get(name, ""))
        for name in ASKED
    }
    if not folder:
        return found
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"config.annotate.web.guidelines: there is no folder {folder}")
    texts: dict[str, Path] = {}
    errors = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        try:
            name, change = _read(path, found, texts)
        except (ValueError, OSError) as error:
            errors.append(f"{path.name}: {error}")
        else:
            found[name] = dataclasses.replace(found[name], **change)
    if errors:
        told = f"config.annotate.web.guidelines: {folder} has files that cannot be used"
        raise ValueError(told + listed(errors))
    return found


def _read(
    path: Path, found: dict[str, Guideline], texts: dict[str, Path]
) -> tuple[str, dict[str, Any]]:
    """The dimension that a file is about, and the fields it changes. Raises ValueError, OSError."""
    named = _TEXT.fullmatch(path.name) or _PICTURE.fullmatch(path.name)
    if named is None or not path.is_file():
        raise ValueError(f"the folder has files {_NAMES}")
    name = named["dimension"]
    if name not in found:
        raise ValueError(f"{name!r} is not a dimension; there are {', '.join(found)}")
    if "side" in named.groupdict():
        read_picture(path, path.name)
        side = named["side"]
        return name, {side: (*getattr(found[name], side), path)}
    if name in texts:
        raise ValueError(f"{texts[name].name} is a text about {name} too: keep one")
    texts[name] = path
    text = path.read_text("utf-8-sig").strip()
    if not text:
        raise ValueError("the file is empty")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{len(text)} characters, at most {LONGEST_TEXT}")
    return name, {"text": text}
