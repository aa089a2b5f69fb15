"""The wording of the query Φ(s_k, e, P), as a file that can be replaced (Section 3, stage 2).

The paper shows its wording in a picture only (Fig. 5); `templates/default.json` is ours. A template
of your own is a file with the same fields, named by `config.reward.query_template`:

    version      a name, any text; with a fingerprint of the words it is the template's version
    head         before the two images: the system message, and where the user's begins
    task         after them, with {task}: what is compared
    aspect       the end, with {words} and, if wanted, {dimension}: up to where the answer begins
    tasks        what {task} says, for each of `tasks.Task`
    dimensions   what {dimension} says, for each of `tasks.Dimension`
    words        what {words} says, likewise; of text alignment with {prompt}, of no other
    answers      yes and no; each has to be one token of the judge's tokenizer

The wording is part of a trained judge, so the judge's folder carries it (`judge_loader`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onereward_jax.tasks import DIMENSIONS, TASKS, Dimension, Task

IMAGE_TOKEN = "<|image_pad|>"
IMAGE = "<|vision_start|>{image}<|vision_end|>"
"""How Qwen2.5-VL marks an image, which is no matter of wording."""

PACKAGED = Path(__file__).parent / "templates" / "default.json"


@dataclasses.dataclass(frozen=True)
class QueryTemplate:
    """The words of all queries; the fields are explained above.

    Raises:
      ValueError: naming the field with which no query can be made.
    """

    name: str
    head: str
    task: str
    aspect: str
    tasks: Mapping[Task, str]
    dimensions: Mapping[Dimension, str]
    words: Mapping[Dimension, str]
    answers: tuple[str, str]

    def __post_init__(self) -> None:
        placeholders = (("task", "{task}"), ("aspect", "{words}"))
        for field, placeholder in placeholders:
            if getattr(self, field).count(placeholder) != 1:
                raise ValueError(f"{field} has to hold {placeholder}, once")
        for dimension, words in self.words.items():
            quotes = words.count("{prompt}")
            if dimension is Dimension.TEXT_ALIGNMENT and quotes != 1:
                raise ValueError(f"words of {dimension.value} have to quote {{prompt}}, once")
            if dimension is not Dimension.TEXT_ALIGNMENT and quotes:
                raise ValueError(
                    f"words of {dimension.value} quote {{prompt}}: only those of "
                    f"{Dimension.TEXT_ALIGNMENT.value} may"
                )
        if len(set(self.answers)) != 2:
            raise ValueError(f"answers are {list(self.answers)}: two different ones are needed")
        if IMAGE_TOKEN in "".join(self.texts()):
            raise ValueError(f"{IMAGE_TOKEN} is put in by itself: no text may hold it")

    @functools.cached_property
    def version(self) -> str:
        """Name and fingerprint; any changed letter changes it."""
        whole = [self.head, IMAGE, self.task, self.aspect]
        whole += [*map(self.task_text, TASKS), *self.answers]
        whole += [self.suffix_text(dimension, "{prompt}") for dimension in Dimension]
        return f"{self.name}-{hashlib.sha256(chr(0).join(whole).encode()).hexdigest()[:12]}"

    def task_text(self, task: Task) -> str:
        """The prefix's words after the images."""
        return self.task.replace("{task}", self.tasks[task])

    def suffix_text(self, dimension: Dimension, prompt: str) -> str:
        """The words that ask for one dimension, up to where the answer begins."""
        words = self.words[dimension].replace("{prompt}", prompt)
        # the prompt goes in last: it may hold braces
        before, after = self.aspect.replace("{dimension}", self.dimensions[dimension]).split(
            "{words}"
        )
        return before + words + after

    def texts(self) -> list[str]:
        """Everything a query may say apart from prompts, for instance to train a tokenizer on."""
        asked = [self.suffix_text(dimension, "") for dimension in Dimension]
        return [self.head, *map(self.task_text, TASKS), *asked, *self.answers]

    def queries(self) -> dict[str, dict[str, str]]:
        """{task: {dimension: the whole query}}, for those who ask a judge with other software.

        Each image is one placeholder, to be repeated for its tokens; `{prompt}` stands for P.
        """
        head = self.head + 2 * IMAGE.format(image=IMAGE_TOKEN)
        return {
            str(task): {
                str(one): head + self.task_text(task) + self.suffix_text(one, "{prompt}")
                for one in dimensions
            }
            for task, dimensions in DIMENSIONS.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a file."""
        fields = {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in vars(self).items()
            if name in {field.name for field in dataclasses.fields(self)}
        }
        return {"version": fields.pop("name"), **fields, "answers": list(self.answers)}

    @classmethod
    def from_dict(cls, content: Any) -> QueryTemplate:
        """The template that a file holds.

        Raises:
          ValueError: naming the field that is missing, unknown or not a text.
        """
        if not isinstance(content, dict):
            raise ValueError("a template is a JSON object")
        texts = ("version", "head", "task", "aspect")
        tables = {"tasks": Task, "dimensions": Dimension, "words": Dimension}
        _check_names(content, [*texts, *tables, "answers"], "")
        for name in texts:
            _check_text(content[name], name)
        fields = {name: content[name] for name in texts if name != "version"}
        for name, kind in tables.items():
            table = content[name]
            if not isinstance(table, dict):
                raise ValueError(f"{name} is not a JSON object")
            _check_names(table, [one.value for one in kind], f"{name}.")
            for key, text in table.items():
                _check_text(text, f"{name}.{key}")
            fields[name] = {one: table[one.value] for one in kind}
        answers = content["answers"]
        if not isinstance(answers, list) or len(answers) != 2:
            raise ValueError("answers is not a list of two texts")
        for text in answers:
            _check_text(text, "answers")
        return cls(name=content["version"], answers=(answers[0], answers[1]), **fields)


def read_template(path: str | Path) -> QueryTemplate:
    """The template in a file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no template; says where and why.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"query template {path}: there is no such file")
    try:
        return QueryTemplate.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"query template {path}: {error}") from error


@functools.cache
def packaged_template() -> QueryTemplate:
    """Ours."""
    return read_template(PACKAGED)


def _check_names(content: Mapping[str, Any], names: list[str], prefix: str) -> None:
    for name in names:
        if name not in content:
            raise ValueError(f"{prefix}{name} is missing")
    for name in content:
        if name not in names:
            raise ValueError(f"{prefix}{name} is unknown; there are {', '.join(names)}")


def _check_text(value: Any, name: str) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is {value!r}: a text is expected")


TEMPLATE_VERSION = packaged_template().version
"""Of ours."""
