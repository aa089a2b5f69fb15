"""The query's wording as a file: what may be changed, and what is refused in one sentence."""

import dataclasses
import json

import pytest

from onereward_jax.reward import TEMPLATE_VERSION, packaged_template, read_template
from onereward_jax.task_file import TaskFile, read_tasks
from onereward_jax.tasks import DIMENSIONS, Dimension, Task


def test_the_packaged_words_are_those_that_the_shipped_judges_learnt():
    """The version of the judges that were trained before the words were a file."""
    assert TEMPLATE_VERSION == packaged_template().version == "1-ae4bddff2714"


def test_a_template_survives_its_file(tmp_path):
    words = packaged_template().words | {Dimension.TEXT_ALIGNMENT: "wie \u201e{prompt}\u201c"}
    template = dataclasses.replace(packaged_template(), name="deutsch", words=words)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(template.to_dict()), encoding="utf-8")
    assert read_template(path) == template
    assert template.version != TEMPLATE_VERSION and template.version.startswith("deutsch-")


def test_every_letter_counts_in_the_version():
    ours = packaged_template()
    others = [
        dataclasses.replace(ours, head=ours.head + " "),
        dataclasses.replace(ours, answers=("Yes", "Nope")),
        dataclasses.replace(ours, tasks=ours.tasks | {Task.REMOVAL: "removal"}),
        dataclasses.replace(ours, dimensions=ours.dimensions | {Dimension.STRUCTURE: "form"}),
        dataclasses.replace(ours, aspect=ours.aspect.replace("Aspect", "About")),
    ]
    assert len({ours.version, *(one.version for one in others)}) == 1 + len(others)


def test_queries_for_other_software_say_what_is_asked():
    template = packaged_template()
    for task, dimensions in DIMENSIONS.items():
        for dimension in dimensions:
            text = template.queries()[task][dimension]
            assert text.count("<|image_pad|>") == 2 and text.startswith(template.head)
            assert text.endswith(
                template.task_text(task) + template.suffix_text(dimension, "{prompt}")
            )


def test_prompts_with_braces_are_quoted_as_they_are():
    text = packaged_template().suffix_text(Dimension.TEXT_ALIGNMENT, "{words} {dimension} {prompt}")
    assert '"{words} {dimension} {prompt}"' in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["words"].pop("structure"), "words.structure is missing"),
        (lambda file: file["words"].update(beauty="x"), "words.beauty is unknown; there are struc"),
        (lambda file: file["words"].update(aesthetics=3), "words.aesthetics is 3: a text is exp"),
        (
            lambda file: file["words"].update(text_alignment="fit"),
            "words.text_alignment must contain {prompt} exactly once",
        ),
        (
            lambda file: file["words"].update(structure="like {prompt}"),
            "words.structure contains {prompt}: only words.text_alignment may",
        ),
        (lambda file: file.update(aspect="About {dimension}."), "aspect must contain {words}"),
        (lambda file: file.update(task="Compare."), "task must contain {task} exactly once"),
        (lambda file: file.update(head="<|image_pad|>"), "<|image_pad|> is inserted automatically"),
        (lambda file: file.update(answers=["Yes"]), "answers is not a list of two texts"),
        (lambda file: file.update(answers=["Yes", "Yes"]), "two different texts expected"),
        (lambda file: file.pop("version"), "version is missing"),
        (lambda file: file.update(tasks=[]), "tasks is not a JSON object"),
    ],
)
def test_a_file_that_makes_no_query_is_refused_in_one_sentence(change, message, tmp_path):
    file, path = packaged_template().to_dict(), tmp_path / "mine.json"
    change(file)
    path.write_text(json.dumps(file), encoding="utf-8")
    with pytest.raises(ValueError) as found:
        read_template(path)
    assert str(found.value).startswith(f"query template {path}: ")
    assert message in str(found.value) and "\n" not in str(found.value)


def test_a_file_that_is_not_there_or_no_json_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.json: there is no such file"):
        read_template(tmp_path / "nowhere.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="bad.json: "):
        read_template(tmp_path / "bad.json")


OWN_TASK = {"title": "recolouring", "dimensions": ["form", "aesthetics"], "probability": 0.5}


def test_a_task_file_adds_tasks_and_dimensions():
    content = {"tasks": {"recolour": OWN_TASK}, "dimensions": {"form": {"words": "as it was"}}}
    found = read_tasks(content, ("fill",), ("aesthetics",))
    assert found.tasks["recolour"].dimensions == ("form", "aesthetics")
    assert found.dimensions == {"form": "as it was"}
    fixed = {"tasks": {"recolour": OWN_TASK | {"prompt": "red"}}} | {
        "dimensions": content["dimensions"]
    }
    other = read_tasks(fixed, ("fill",), ("aesthetics",))
    assert other.digest("prompt") != found.digest("prompt")
    assert other.digest("dimensions") == found.digest("dimensions")
    assert TaskFile().version == TaskFile().digest("prompt") == ""


@pytest.mark.parametrize(
    ("tasks", "dimensions", "message"),
    [
        ({"fill": OWN_TASK}, {}, "tasks.fill is already defined"),
        ({"Fill": OWN_TASK}, {}, "tasks.Fill: a name starts"),
        ({"other": OWN_TASK | {"titel": "x"}}, {}, "tasks.other.titel is unknown"),
        ({"other": {"title": "x"}}, {}, "tasks.other.dimensions is missing"),
        ({"other": OWN_TASK | {"dimensions": ["nice"]}}, {}, "unknown 'nice'; known: aesthetics"),
        ({"other": OWN_TASK | {"dimensions": []}}, {}, "tasks.other.dimensions is \\[\\]"),
        ({"other": OWN_TASK | {"probability": -1}}, {}, "probability is -1: expected at least 0"),
        ({"other": OWN_TASK}, {"aesthetics": {"words": "x"}}, "aesthetics is already defined"),
        ({"other": OWN_TASK}, {"new": {"words": "{prompt}"}}, "only text_alignment may"),
    ],
)
def test_what_is_wrong_in_a_task_file_is_named(tasks, dimensions, message):
    dimensions = {"form": {"words": "as it was"}} | dimensions
    with pytest.raises(ValueError, match=message):
        read_tasks({"tasks": tasks, "dimensions": dimensions}, ("fill",), ("aesthetics",))
