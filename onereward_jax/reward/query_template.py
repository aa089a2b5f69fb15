"""The wording of the query Φ(s_k, e, P), as a replaceable file (Section 3, stage 2).

The paper shows its wording only in a figure (Fig. 5); `templates/default.json` is our own. To use
another template, write a file with the same fields and name it in `config.reward.query_template`:

    version      any name; name and fingerprint of the wording form the template's version
    head         text before the images: the system message and the start of the user message
    task         text after the images, with {task}
    aspect       the question, with {words} and optionally {dimension}, up to where answers begin
    tasks        value of {task} for each `tasks.Task`
    dimensions   value of {dimension} for each `tasks.Dimension`
    words        value of {words} for each `tasks.Dimension`; only text alignment has {prompt}
    answers      yes and no; each must be a single token of the judge's tokenizer
    pictures     optional: results in a query, 2, or 1 for a scalar judge (`Scorer.is_scalar`)
    source       optional: the words around the source picture {image}, for a judge that sees it
                 (`judge_view`), by the way it is shown: "outlined" or "blanked"; without, those of
                 `templates/source.json`

Tasks and dimensions of your own (`task_file`) may be left out: their file has words for them.

A trained judge depends on its wording, so the template is saved in its folder (`judge_loader`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onereward_jax.reward.judge_view import SOURCES
from onereward_jax.task_file import VARIABLE
from onereward_jax.tasks import DIMENSIONS, OWN, TASKS, Dimension, Task

IMAGE_TOKEN = "<|image_pad|>"
IMAGE = "<|vision_start|>{image}<|vision_end|>"
"""Qwen2.5-VL's image markup, not part of the template."""

PACKAGED = Path(__file__).parent / "templates" / "default.json"
SCALAR = PACKAGED.with_name("scalar.json")
SOURCE_WORDS = PACKAGED.with_name("source.json")
"""Words around the source picture, for templates without."""

OPTIONAL: dict[str, Any] = {"pictures": 2, "source": {}}
"""Fields that a file may leave out, and their values then."""


@dataclasses.dataclass(frozen=True)
class QueryTemplate:
    """The wording of all queries; see the module docstring for the fields.

    Raises:
      ValueError: naming the invalid field.
    """

    name: str
    head: str
    task: str
    aspect: str
    tasks: Mapping[Task, str]
    dimensions: Mapping[Dimension, str]
    words: Mapping[Dimension, str]
    answers: tuple[str, str]
    pictures: int = 2
    source: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        placeholders = (("task", "{task}"), ("aspect", "{words}"))
        for field, placeholder in placeholders:
            if getattr(self, field).count(placeholder) != 1:
                raise ValueError(f"{field} must contain {placeholder} exactly once")
        for dimension, words in self.words.items():
            quotes = words.count("{prompt}")
            if dimension is Dimension.TEXT_ALIGNMENT and quotes != 1:
                raise ValueError(f"words.{dimension.value} must contain {{prompt}} exactly once")
            if dimension is not Dimension.TEXT_ALIGNMENT and quotes:
                raise ValueError(
                    f"words.{dimension.value} contains {{prompt}}: only "
                    f"words.{Dimension.TEXT_ALIGNMENT.value} may"
                )
        for shown, words in self.source.items():
            if shown not in SOURCES[1:]:
                raise ValueError(f"source.{shown} is unknown; there are {', '.join(SOURCES[1:])}")
            if words.count("{image}") != 1:
                raise ValueError(f"source.{shown} must contain {{image}} exactly once")
        if self.pictures not in (1, 2):
            raise ValueError(f"pictures is {self.pictures!r}: 1 or 2 expected")
        if len(set(self.answers)) != 2:
            raise ValueError(f"answers is {list(self.answers)}: two different texts expected")
        if IMAGE_TOKEN in "".join(self.texts()):
            raise ValueError(f"{IMAGE_TOKEN} is inserted automatically: no text may contain it")

    @functools.cached_property
    def version(self) -> str:
        """Name and fingerprint of the wording."""
        whole = [self.head, IMAGE, self.task, self.aspect]
        whole += [*map(self.task_text, TASKS), *self.answers]
        whole += [self.suffix_text(dimension, "{prompt}") for dimension in Dimension]
        whole += [text for shown in sorted(self.source) for text in (shown, self.source[shown])]
        whole += [] if self.pictures == 2 else [f"{self.pictures} picture"]
        return f"{self.name}-{hashlib.sha256(chr(0).join(whole).encode()).hexdigest()[:12]}"

    def showing(self, source: str) -> QueryTemplate:
        """The template of a judge that sees the source picture this way; "": not at all."""
        words = {}
        if source:
            words[source] = self.source.get(source) or _source_words()[source]
        return dataclasses.replace(self, source=words)

    def before_images(self) -> tuple[str, ...]:
        """The text before each image: source, if the template shows one way of it, and results."""
        texts = [self.head]
        if self.source:
            (words,) = self.source.values()
            before, after = words.split("{image}")
            texts = [self.head + before, after]
        return *texts, *[""] * (self.pictures - 1)

    def task_text(self, task: Task) -> str:
        """The prefix's words after the images."""
        return self.task.replace("{task}", self.tasks[task])

    def suffix_text(self, dimension: Dimension, prompt: str) -> str:
        """The question about one dimension, up to where the answer begins."""
        words = self.words[dimension].replace("{prompt}", prompt)
        # Insert the prompt last: it may contain braces.
        before, after = self.aspect.replace("{dimension}", self.dimensions[dimension]).split(
            "{words}"
        )
        return before + words + after

    def texts(self) -> list[str]:
        """All texts of queries, without prompts, e.g. to train a tokenizer on."""
        asked = [self.suffix_text(dimension, "") for dimension in Dimension]
        source = [words.replace("{image}", "") for words in self.source.values()]
        return [self.head, *source, *map(self.task_text, TASKS), *asked, *self.answers]

    def queries(self) -> dict[str, dict[str, str]]:
        """{task: {dimension: the full query}}, to query a judge with other software.

        Each image is a single placeholder, to be repeated once per token; `{prompt}` is P.
        """
        image = IMAGE.format(image=IMAGE_TOKEN)
        head = "".join(text + image for text in self.before_images())
        return {
            str(task): {
                str(one): head + self.task_text(task) + self.suffix_text(one, "{prompt}")
                for one in dimensions
            }
            for task, dimensions in DIMENSIONS.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """The JSON content of a template file."""
        fields = {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in vars(self).items()
            if name in {field.name for field in dataclasses.fields(self)}
        }
        for name, value in OPTIONAL.items():
            if fields[name] == value:
                del fields[name]
        return {"version": fields.pop("name"), **fields, "answers": list(self.answers)}

    @classmethod
    def from_dict(cls, content: Any) -> QueryTemplate:
        """The template from the JSON content of a file.

        Raises:
          ValueError: naming the field that is missing, unknown or not a string.
        """
        if not isinstance(content, dict):
            raise ValueError("a template is a JSON object")
        content = OPTIONAL | content
        texts = ("version", "head", "task", "aspect")
        tables = {"tasks": Task, "dimensions": Dimension, "words": Dimension}
        own = {
            "tasks": {name: task.title for name, task in OWN.tasks.items()},
            "dimensions": {name: Dimension(name).title for name in OWN.dimensions},
            "words": dict(OWN.dimensions),
        }
        _check_names(content, [*texts, *tables, "answers", *OPTIONAL], "")
        source = content["source"]
        if not isinstance(source, dict):
            raise ValueError("source is not a JSON object")
        for shown, text in source.items():
            _check_text(text, f"source.{shown}")
        for name in texts:
            _check_text(content[name], name)
        fields = {name: content[name] for name in texts if name != "version"}
        for name, keys in tables.items():
            table = content[name]
            if not isinstance(table, dict):
                raise ValueError(f"{name} is not a JSON object")
            table = own[name] | table
            _check_names(table, [one.value for one in keys], f"{name}.")
            for key, text in table.items():
                _check_text(text, f"{name}.{key}")
            fields[name] = {one: table[one.value] for one in keys}
        answers = content["answers"]
        if not isinstance(answers, list) or len(answers) != 2:
            raise ValueError("answers is not a list of two texts")
        for text in answers:
            _check_text(text, "answers")
        fields |= {"answers": (answers[0], answers[1]), "pictures": content["pictures"]}
        return cls(name=content["version"], source=source, **fields)


def read_template(path: str | Path) -> QueryTemplate:
    """Reads a template file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: naming the file and the invalid field.
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
    """The default template."""
    return read_template(PACKAGED)


@functools.cache
def _source_words() -> dict[str, str]:
    return json.loads(SOURCE_WORDS.read_text(encoding="utf-8"))


@functools.cache
def packaged_scalar_template() -> QueryTemplate:
    """The default template of scalar judges."""
    return read_template(SCALAR)


def _check_names(content: Mapping[str, Any], names: list[str], prefix: str) -> None:
    for name in names:
        if name not in content:
            raise ValueError(f"{prefix}{name} is missing")
    for name in content:
        if name not in names:
            raise ValueError(
                f"{prefix}{name} is unknown; there are {', '.join(names)}"
                + (f" (a task of your own? {VARIABLE} names its file)" if prefix else "")
            )


def _check_text(value: Any, name: str) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is {value!r}: a text is expected")


TEMPLATE_VERSION = packaged_template().version
"""Version of the default template."""
