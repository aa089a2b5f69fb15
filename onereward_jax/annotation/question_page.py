"""`index.html` next to the questions: a page that shows them one by one and saves the answers.

It needs no server: open it from the local folder. The answers are saved as a file of JSON lines for
`answers.read_answers`.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterable
from pathlib import Path

from onereward_jax.annotation.questions import OVERALL, USABLE, Question
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.tasks import Dimension

PAGE = "index.html"

MEANINGS = {
    Dimension.STRUCTURE: "Spatial and geometric coherence with the original layout.",
    Dimension.CONSISTENCY: "Colour, texture and light blend with the surroundings.",
    Dimension.TEXT_ALIGNMENT: "Identity, attributes and position that the prompt asks for.",
    Dimension.AESTHETICS: "Overall appeal.",
    Dimension.REMOVAL_QUALITY: "The object is gone, the area is clean, nothing is invented there.",
    OVERALL: "The image as a whole.",
    USABLE: "Good enough to use as it is.",
}


def write_question_page(path: Path, questions: Iterable[Question]) -> None:
    """Writes the page; it refers to the images by the relative paths in the questions."""
    shown = [
        line
        | {
            "task": question.task.title,
            "title": line["dimension"].replace("_", " "),
            "meaning": MEANINGS[line["dimension"]],
        }
        for question in questions
        for line in question.lines()
    ]
    template = importlib.resources.files(__package__).joinpath("question_page.html")
    # In a script element only "</" ends the text.
    content = json.dumps(shown, ensure_ascii=False).replace("</", "<\\/")
    with atomic_file(path) as draft:
        draft.write_text(template.read_text("utf-8").replace("QUESTIONS", content, 1), "utf-8")
