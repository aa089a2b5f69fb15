"""What makes the output of `curate` stale, and with it that of `data`."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from test_stage_inputs import another, changed, inputs, mini, verdicts

from onereward_jax.chain import fingerprints
from onereward_jax.chain.staleness import leaves

FILES = ("pictures", "clip", "segmentation", "words", "captions")


@pytest.fixture
def world(tmp_path):
    """Pictures, a model folder, and files about the pictures."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "clip").mkdir()
    for name in ("pictures/a.jpg", "pictures/b.jpg", "masks/a.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    for name in ("clip/config.json", "words", "captions"):
        (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.fixture
def config(world):
    fields = {name: str(world / name) for name in (*FILES[:2], *FILES[3:])}
    fields["segmentation"] = str(world / "masks")
    fields = {f"curate__{name}": value for name, value in fields.items()}
    config = changed(mini(), stages=("curate", "data"), **fields)
    return changed(config, data__source="folder", data__path="stage:curate")


def test_only_another_clip_starts_over_and_the_batch_size_does_not_count(config, world):
    then, values = inputs(config, world), leaves(config)
    assert then["data"]["content.data.path"] == fingerprints.MADE_HERE
    found = {
        name: verdicts(
            then, changed(config, **{name.replace(".", "__"): another(name, value)}), world
        )
        for name, value in values.items()
        if name.startswith("curate.") and name.removeprefix("curate.") not in FILES
    }
    assert found.pop("curate.batch_size") == ".."
    assert set(found.values()) == {"+!"} and len(found) > 15
    assert verdicts(then, changed(config, models__dtype="bfloat16"), world) == "!!"
    (world / "clip" / "config.json").write_text('{"a": 1}')
    assert verdicts(then, config, world) == "!!"


@pytest.mark.parametrize("name", ["pictures/a.jpg", "pictures/a.txt", "masks/a.png", "words"])
def test_files_count_by_their_content(config, world, name):
    then = inputs(config, world)
    (world / name).write_text("changed")
    assert verdicts(then, config, world) == "+!"


def test_reading_many_new_files_shows_its_progress(config, world, monkeypatch, capsys):
    inputs(config, world)
    assert "read files" not in capsys.readouterr().err
    monkeypatch.setattr(fingerprints, "MANY", 2)
    inputs(config, world)  # nothing is new
    assert "read files" not in capsys.readouterr().err
    (world / fingerprints.CURATED).unlink()
    inputs(config, world)
    assert "read files" in capsys.readouterr().err


def test_a_copy_of_the_pictures_is_the_same_and_other_files_do_not_count(config, world):
    then = inputs(config, world)
    shutil.copytree(world / "pictures", world / "copy")
    (world / "copy" / "notes.md").write_text("nothing")
    (world / "copy" / ".thumb.jpg").write_text("nothing")
    moved = changed(config, curate__pictures=str(world / "copy"))
    assert verdicts(then, moved, world) == ".."
    assert json.loads((world / fingerprints.CURATED).read_text()).keys() == {"a.jpg", "b.jpg"}
