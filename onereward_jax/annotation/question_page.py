"""`index.html` next to the questions: the page for annotators in a form that needs no server.

One file with everything inside except the images, which it refers to by relative paths: it opens
from a local folder, keeps the answers in the browser, and saves them as JSON lines for
`answers.read_answers`. The folder `page` has its style and scripts; the annotation server shows
the same page.
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from onereward_jax.annotation.guidelines import Guideline, read_guidelines
from onereward_jax.annotation.questions import Question
from onereward_jax.annotation.web_settings import set_title
from onereward_jax.common.atomic_file import atomic_file

PAGE = "index.html"
ENTRY = "annotate_from_file.js"
"""The script that starts the page; what it imports is put into the page too."""

# Nothing from elsewhere, even if a question should bring a script along.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' file: data: blob:; base-uri 'none'; form-action 'none'"
)
_IMPORT = re.compile(r'^import [^;]*? from "\./([a-z_]+\.js)";\n', re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export (?=async |function |const |class )", re.MULTILINE)


def write_question_page(
    path: Path,
    questions: Iterable[Question],
    guidelines: Mapping[str, Guideline] | None = None,
) -> None:
    """Writes the page; it refers to the images by the relative paths in the questions.

    Args:
      path: the page.
      questions: what to ask.
      guidelines: per dimension; example pictures must be inside the page's folder. Default: those
        of the package.
    """

    def address(file: Path) -> str:
        return quote(file.relative_to(path.parent).as_posix())

    shown = [_shown(question) for question in questions]
    asked = dict.fromkeys(name for one in shown for name in one["dimensions"])
    guidelines = guidelines or read_guidelines()
    content = {
        "title": set_title(path.parent.name) or "Questions",
        "questions": shown,
        "dimensions": {name: guidelines[name].to_json(address) for name in asked},
    }
    with atomic_file(path) as draft:
        draft.write_text(_whole_page(content), "utf-8")


def _shown(question: Question) -> dict[str, Any]:
    first = next(question.lines())
    fields = ("triplet", "digest", "prompt", "image", "mask", "candidates")
    return {
        **{name: first[name] for name in fields},
        "task": question.task.title,
        "dimensions": question.dimensions,
    }


def _whole_page(content: Mapping[str, Any]) -> str:
    """The page with style, scripts and content inside."""
    text = _file(PAGE)
    # In a script element only "<" can end the text.
    data = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")
    parts = {
        '<meta charset="utf-8">': '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<link rel="stylesheet" href="style.css">': f"<style>\n{_file('style.css')}</style>",
        '<script type="module" src="annotate.js"></script>': (
            f'<script id="questions" type="application/json">{data}</script>\n'
            f'<script type="module">\n{"".join(_scripts(ENTRY, {}).values())}</script>'
        ),
    }
    for before, after in parts.items():
        if text.count(before) != 1:
            raise ValueError(f"page/{PAGE} has no {before}")
        text = text.replace(before, after)
    return text


def _scripts(name: str, found: dict[str, str]) -> dict[str, str]:
    """A script and those it imports, what is imported first, as parts of a single module.

    Their names at top level must differ: the browser refuses the page otherwise.
    """
    text = _file(name)
    for imported in _IMPORT.findall(text):
        if imported not in found:
            _scripts(imported, found)
    found[name] = f"// {name}\n{_EXPORT.sub('', _IMPORT.sub('', text))}"
    return found


def _file(name: str) -> str:
    return importlib.resources.files(__package__).joinpath("page", name).read_text("utf-8")
