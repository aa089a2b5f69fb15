"""Every format holds the run's preferences: exported and imported, they equal the store."""

import dataclasses
import json
from xml.etree import ElementTree

import datasets
import numpy as np
import pytest
from exchange_runs import COUNT, SIZE, records, stored, write_run
from huggingface_hub import DatasetCard
from PIL import Image

from onereward_jax import preferences
from onereward_jax.annotation.preferences_folder import read_about, read_comparisons
from onereward_jax.tasks import DIMENSIONS, Dimension, Task

WHOLE = ("folder", "parquet", "huggingface")
"""Formats that hold everything."""
PAIRS = ("trl", "ms_swift")


def export(source, to, format="folder", *flags):
    kind = "--from" if (source / "about.json").exists() else "--workdir"
    preferences.main(["export", f"{kind}={source}", f"--to={to}", f"--format={format}", *flags])
    return to


def import_(source, to, format, *flags):
    preferences.main(["import", f"--from={source}", f"--to={to}", f"--format={format}", *flags])
    return to


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    return export(run, tmp_path_factory.mktemp("made") / "prefs", "folder", "--license=cc-by-4.0")


def contents(folder):
    """Every picture of a folder, by the comparison and its place."""
    return {
        (one.id, place): (folder / picture.path).read_bytes()
        for one in read_comparisons(folder)
        for place, picture in enumerate(one.pictures())
    }


def test_the_folder_of_a_run_holds_its_store_and_pictures_bit_by_bit(run, folder):
    comparisons = read_comparisons(folder)
    candidates, given = stored(run)
    without_paths = [dataclasses.replace(one, picture="") for one in candidates]
    assert records(comparisons) == (without_paths, given)
    pictures = {(one.triplet_id, one.index): one.picture for one in candidates}
    for one in comparisons:
        for index, each in enumerate(one.candidates):
            original = run / "candidates" / pictures[one.id, index]
            assert (folder / each.picture.path).read_bytes() == original.read_bytes()
        assert Image.open(folder / one.image.path).size == (SIZE, SIZE)
        assert one.split == one.id.partition("/")[0]
    photographs = {one.source: one.image.pixels for one in comparisons}
    assert len(photographs) == 4, "each with several masks and tasks"
    about = read_about(folder)
    assert about["license"] == "cc-by-4.0" and about["origin"]["format"] == "run"
    counts = about["counts"]
    assert counts["comparisons"] == 12 and counts["sources"] == 4 and counts["annotators"] == 2
    assert counts["answers"] == len(given) == 72 and counts["undecided"] == 8
    assert sum(len(one.pictures()) for one in comparisons) > counts["pictures"], "each once"


@pytest.mark.parametrize("format", WHOLE)
def test_whole_formats_return_the_same_folder(folder, tmp_path, format):
    back = import_(export(folder, tmp_path / "out", format), tmp_path / "back", format)
    assert read_comparisons(back) == read_comparisons(folder)
    assert (back / "preferences.jsonl").read_bytes() == (folder / "preferences.jsonl").read_bytes()
    assert contents(back) == contents(folder)
    about = read_about(back)
    assert about["license"] == "cc-by-4.0" and about["origin"]["format"] == "run"


def test_datasets_loads_the_hugging_face_folder_with_image_columns(folder, tmp_path):
    out = export(folder, tmp_path / "hub", "huggingface")
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "test"}
    assert loaded["train"].features["image"] == datasets.Image()
    assert loaded["train"].features["candidates"] == datasets.List(datasets.Image())
    assert DatasetCard.load(out / "README.md").data.license == "cc-by-4.0"
    by_id = {one.id: one for one in read_comparisons(folder)}
    for split, rows in loaded.items():
        for row in rows:
            one = by_id.pop(row["id"])
            assert (row["split"], row["task"], row["prompt"]) == (split, one.task, one.prompt)
            for image, each in zip(row["candidates"], one.candidates, strict=True):
                assert image.format == "PNG"
                with Image.open(folder / each.picture.path) as expected:
                    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
            said = [{**dataclasses.asdict(answer)} for answer in one.answers]
            assert row["answers"] == said
    assert not by_id


def decided(comparisons):
    """Who preferred which picture to which, where, in which dimension of which edit."""
    found = []
    for one in comparisons:
        for answer in one.answers:
            if answer.best is not None:
                best, worst = (
                    one.candidates[place].picture.pixels for place in (answer.best, answer.worst)
                )
                edit = (one.task, one.prompt, one.split, one.source)
                said = dataclasses.replace(answer, best=0, worst=1)
                found.append((*edit, best, worst, dataclasses.astuple(said)))
    return sorted(found, key=repr)


@pytest.mark.parametrize("format", PAIRS)
def test_pair_files_hold_every_decided_answer(folder, tmp_path, format):
    out = export(folder, tmp_path / "out", format)
    back = import_(out, tmp_path / "back", format)
    assert decided(read_comparisons(back)) == decided(read_comparisons(folder))
    assert read_about(back)["license"] == "cc-by-4.0"


def test_trl_rows_ask_about_two_images_and_position_tells_nothing(folder, tmp_path):
    loaded = datasets.load_dataset(
        str(export(folder, tmp_path / "trl", "trl")), cache_dir=str(tmp_path / "cache")
    )
    chosen = []
    for row in [*loaded["train"], *loaded["test"]]:
        (user,) = row["prompt"]
        assert [part["type"] for part in user["content"]] == ["image", "image", "text"]
        assert user["role"] == "user" and len(row["images"]) == 2
        words = user["content"][-1]["text"]
        assert "Is the first image better than the second?" in words and "<|" not in words
        if row["dimension"] == Dimension.TEXT_ALIGNMENT:
            assert row["edit_prompt"] in words
        (right,), (wrong,) = row["chosen"], row["rejected"]
        assert right["role"] == wrong["role"] == "assistant"
        texts = [one["content"][0]["text"] for one in (right, wrong)]
        assert sorted(texts) == ["No", "Yes"]
        chosen.append(texts[0] == "Yes")
    assert 0.25 < np.mean(chosen) < 0.75


def test_trl_rows_with_an_implicit_prompt_are_read_too(folder, tmp_path):
    out = export(folder, tmp_path / "trl", "trl")
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    implicit = tmp_path / "implicit"
    implicit.mkdir()
    for split, rows in loaded.items():
        whole = rows.map(
            lambda row: {name: row["prompt"] + row[name] for name in ("chosen", "rejected")},
            remove_columns="prompt",
        )
        whole.to_parquet(implicit / f"{split}.parquet")
    back = import_(implicit, tmp_path / "back", "trl")
    assert decided(read_comparisons(back)) == decided(read_comparisons(folder))


def test_ms_swift_rows_name_files_and_have_one_tag_per_image(tmp_path):
    run = write_run(tmp_path / "run", photographs=1, prompt="a <image> of <video>s, <b>big</b>")
    folder = export(run, tmp_path / "prefs")
    out = export(folder, tmp_path / "swift", "ms_swift")
    for name in ("dpo-train", "dpo-test", "rm-train", "rm-test"):
        for line in (out / f"{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            tags = "".join(one["content"] for one in row["messages"]).count("<image>")
            assert tags == len(row["images"])
            assert all((out / path).is_file() for path in row["images"])
            about = row["preference"]
            words = row["messages"][0]["content"]
            assert "<video>" not in words and about["dimension"].replace("_", " ") in words
            if about["task"] == "fill" and name.startswith("rm"):
                assert words.endswith("a image of videos, <b>big</b>")
                assert about["edit_prompt"] == "a <image> of <video>s, <b>big</b>"
            if name.startswith("rm"):
                assert row["images"][0] == row["rejected_images"][0]
                assert row["images"][1] != row["rejected_images"][1]
            else:
                assert {row["messages"][-1]["content"], row["rejected_response"]} == {"Yes", "No"}
    # A file of single edits can be read too.
    flags = (f"--pictures={out}",)
    rm = import_(out / "rm-train.jsonl", tmp_path / "rm", "ms_swift", *flags)
    train = [one for one in read_comparisons(folder) if one.split == "train"]
    assert decided(read_comparisons(rm)) == decided(train)


def label_studio_results(out, *, minimal):
    """What Label Studio exports of the imported tasks: JSON, or JSON-MIN as its converter does."""
    results = []
    for path in sorted((out / "tasks").glob("*.json")):
        for number, task in enumerate(json.loads(path.read_text()), 1):
            if not minimal:
                for annotation in task["annotations"]:
                    annotation["completed_by"] = 1
                results.append(task | {"id": number})
                continue
            for annotation in task["annotations"]:
                record = task["data"] | {"id": number, "annotator": 7}
                for one in annotation["result"]:
                    (record[one["from_name"]],) = one["value"]["choices"]
                time = "2025-11-24T16:00:00.500000Z"
                kept = {"annotation_id": 3, "created_at": time, "updated_at": time}
                results.append(record | kept | {"lead_time": annotation["lead_time"]})
                break
    file = out.parent / ("min.json" if minimal else "full.json")
    file.write_text(json.dumps(results))
    return file


def test_label_studio_results_return_with_their_annotators(folder, tmp_path):
    out = export(folder, tmp_path / "ls", "label_studio", "--url=https://server/")
    file = label_studio_results(out, minimal=False)
    back = import_(file, tmp_path / "back", "label_studio", f"--pictures={out}")
    assert in_order(read_comparisons(back)) == in_order(read_comparisons(folder))
    assert contents(back) == contents(folder)


def in_order(comparisons):
    """Sorted, and the answers of each too: Label Studio groups them by annotator."""
    found = [
        dataclasses.replace(one, answers=tuple(sorted(one.answers, key=repr)))
        for one in comparisons
    ]
    return sorted(found, key=lambda one: one.id)


def test_an_answer_that_is_changed_in_label_studio_is_of_who_changed_it(folder, tmp_path):
    out = export(folder, tmp_path / "ls", "label_studio")
    file = label_studio_results(out, minimal=False)
    entries = json.loads(file.read_text())
    (entry,) = [
        one for one in entries if one["data"]["comparison"] == read_comparisons(folder)[0].id
    ]
    annotation = next(
        one for one in entry["annotations"] if one["result"][0]["meta"]["annotator"] == "bob"
    )
    annotation["completed_by"] = 9
    results = {one["from_name"]: one for one in annotation["result"]}
    dimensions = [name.removeprefix("best_") for name in results if name.startswith("best_")]
    # The worst stays in the results when the best becomes "no difference": its view is hidden.
    results[f"best_{dimensions[0]}"]["value"]["choices"] = ["no difference"]
    (choice,) = results[f"worst_{dimensions[1]}"]["value"]["choices"]
    (best,) = results[f"best_{dimensions[1]}"]["value"]["choices"]
    (other,) = {"A", "B", "C"} - {choice, best}
    # Chosen again, a result has no meta.
    results[f"worst_{dimensions[1]}"]["value"]["choices"] = [other]
    del results[f"worst_{dimensions[1]}"]["meta"]
    file.write_text(json.dumps(entries))
    back = import_(file, tmp_path / "back", "label_studio", f"--pictures={out}")
    (one,) = [one for one in read_comparisons(back) if one.id == entry["data"]["comparison"]]
    said = {answer.dimension: answer for answer in one.answers if answer.annotator == "9"}
    assert sorted(said) == sorted(dimensions[:2])
    assert said[dimensions[0]].best is said[dimensions[0]].worst is None
    changed = said[dimensions[1]]
    assert (changed.best, changed.worst) == ("ABC".index(best), "ABC".index(other))
    assert {answer.answered_at for answer in said.values()} == {0.0}
    kept = [answer.dimension for answer in one.answers if answer.annotator == "bob"]
    assert sorted(kept) == sorted(dimensions[2:])


def test_label_studio_json_min_is_read_too(folder, tmp_path):
    out = export(folder, tmp_path / "ls", "label_studio")
    file = label_studio_results(out, minimal=True)
    back = import_(file, tmp_path / "back", "label_studio", f"--pictures={out}")
    expected = {one.id: one for one in read_comparisons(folder)}
    for one in read_comparisons(back):
        first = [a for a in expected[one.id].answers if a.annotator == "ann"]
        said = {answer.dimension: (answer.best, answer.worst) for answer in one.answers}
        assert said == {answer.dimension: (answer.best, answer.worst) for answer in first}
        assert {answer.annotator for answer in one.answers} == {"7"}
        assert {answer.answered_at for answer in one.answers} == {1764000000.5}


def test_the_labelling_interface_has_a_control_for_every_dimension(folder, tmp_path):
    out = export(folder, tmp_path / "ls", "label_studio", "--without_answers")
    for task in (Task.FILL, Task.REMOVAL, Task.EXTEND_WITH_PROMPT):
        view = ElementTree.parse(out / "tasks" / f"{task.value}-{COUNT}.xml").getroot()
        named = {one.get("name"): one for one in view.iter() if one.get("name")}
        pictures = [one.get("name") for one in view.iter("Image")]
        assert pictures == ["image", "mask", "candidate_A", "candidate_B", "candidate_C"]
        controls = {one.get("name") for one in view.iter("Choices")}
        assert controls == {f"{k}_{d}" for d in DIMENSIONS[task] for k in ("best", "worst")}
        for control in view.iter("Choices"):
            assert named[control.get("toName")].tag == "Image"
            assert control.get("required") == "true"
        parents = {one: parent for parent in view.iter() for one in parent}
        for control in view.iter("Choices"):
            kind, _, dimension = control.get("name").partition("_")
            condition = {
                "visibleWhen": "choice-selected",
                "whenTagName": f"best_{dimension}",
                "whenChoiceValue": "A,B,C",
            }
            # Label Studio asks for a required answer unless this very view is hidden.
            assert parents[control].attrib == (condition if kind == "worst" else {})
        tasks = json.loads((out / "tasks" / f"{task.value}-{COUNT}.json").read_text())
        for one in tasks:
            assert one["annotations"] == []
            for image in view.iter("Image"):
                url = one["data"][image.get("value").removeprefix("$")]
                start, path = url.split("=")
                assert start == "/data/local-files/?d"
                assert (tmp_path / path).is_file(), "relative to the folder that is served"


def test_a_run_without_answers_is_exported_to_be_asked(run, tmp_path, capsys):
    asking = tmp_path / "run"
    asking.mkdir()
    for name in ("data", "candidates"):
        (asking / name).symlink_to(run / name)
    out = export(asking, tmp_path / "ls", "label_studio")
    assert "has no answers yet" in capsys.readouterr().out
    assert not any(one.answers for one in read_comparisons(out))


def test_help_names_every_format(capsys):
    for command, names in (("export", ("trl", "ms_swift")), ("import", ("edit_reward", "table"))):
        with pytest.raises(SystemExit) as stopped:
            preferences.main([command, "--help"])
        assert stopped.value.code == 0
        said = capsys.readouterr().out
        assert all(f"  {name} " in said for name in names)
