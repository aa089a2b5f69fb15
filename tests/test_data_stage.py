"""The stage `data`: what it finds before it runs, and what it says of what it has made."""

import json
import pathlib

import jax
import pytest
from ml_collections import FrozenConfigDict
from PIL import Image

import onereward_jax
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.config_files import load_config
from onereward_jax.parallel import make_mesh
from onereward_jax.stages import data, flow_matching_targets
from onereward_jax.tasks import TASKS

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
FILL = {"mask": "m.png", "task": "fill", "prompt": "an apple"}


@pytest.fixture
def folder(tmp_path):
    """Two photographs and a mask; one row each."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in {"a": (200, 30, 30), "b": (30, 200, 30)}.items():
        Image.new("RGB", (32, 32), colour).save(folder / f"{name}.png")
    mask = Image.new("L", (32, 32))
    mask.paste(255, (4, 4, 20, 20))
    mask.save(folder / "m.png")
    write_rows(folder, {"image": "a.png", "split": "train"}, {"image": "b.png", "split": "test"})
    return folder


def write_rows(folder, *rows):
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(FILL | row) for row in rows))


def context_of(workdir, rl=None, **fields):
    config = load_config(f"{ROOT}/configs/mini.py")
    config.mini.update(fields.pop("mini", {}))
    config.data.update(fields)
    config.rl.update(rl or {})
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    return StageContext("data", FrozenConfigDict(config), workdir, mesh)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"source": "foldr"},
            "config.data.source is 'foldr': neither 'folder', 'tfds' nor an",
        ),
        ({"source": "folder"}, "config.data.path is empty: config.data.source = 'folder' needs"),
        ({"source": "tfds"}, "config.data.path is empty: config.data.source = 'tfds' needs"),
        ({"source": "folder", "path": "none"}, "config.data.path is 'none': there is no such"),
        ({"source": "folder", "path": "."}, "is a folder without metadata.jsonl"),
        ({"source": "tfds", "path": "photos"}, "no TFDS data set here or below"),
        ({"image_size": 40}, "config.data.image_size must be a multiple of 16, found 40"),
        ({"aspect_ratios": (1.0, -1.0)}, "config.data.aspect_ratios: -1.0 is not a positive"),
        ({"aspect_ratios": (1.0, 2.0)}, "config.data.aspect_ratios is for folders"),
        (
            {"mini": {"test": dict.fromkeys(TASKS, 0)}},
            "config.mini.test: the number of triplets is 0 for every task",
        ),
    ],
)
def test_mistakes_are_found_before_any_stage(folder, monkeypatch, fields, message):
    monkeypatch.chdir(folder.parent)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        data.check(context_of(folder.parent, **fields))


def test_rows_are_checked_before_any_stage_and_the_tilde_is_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    context = context_of(folder.parent, source="folder", path="~/photos")
    data.check(context)
    write_rows(folder, {"image": "a.png"}, {"image": "c.png"}, {"image": "d.png"})
    with pytest.raises(ValueError, match="2 bad rows\n  line 2: .*c.png\n  line 3: .*d.png"):
        data.check(context)
    write_rows(folder, {"image": "a.png"}, {"image": "a.png", "prompt": "a pear"})
    with pytest.raises(ValueError, match="no row for the split"):
        data.check(context)


def test_the_anchor_is_refused_where_no_row_to_learn_from_has_a_target(folder):
    def context(flow_matching_weight=0.5):
        rl = {"flow_matching_weight": flow_matching_weight}
        return context_of(folder.parent, rl, source="folder", path=str(folder))

    message = "config.rl.flow_matching_weight is 0.5, but no training triplet has a target"
    with pytest.raises(ValueError, match=message):
        flow_matching_targets.check_targets_ahead(context())
    flow_matching_targets.check_targets_ahead(context(0.0))
    a, b = {"image": "a.png", "target": "b.png"}, {"image": "b.png", "target": "a.png"}
    write_rows(folder, {"image": "a.png", "split": "train"}, b | {"split": "test"})
    with pytest.raises(ValueError, match=message):
        flow_matching_targets.check_targets_ahead(context())
    write_rows(folder, a, b)
    flow_matching_targets.check_targets_ahead(context())
    flow_matching_targets.check_targets_ahead(context_of(folder.parent))


def test_what_is_there_and_what_is_missing_is_said(folder, capsys):
    more = {"image": "a.png", "split": "train", "target": "b.png"}
    rows = [{"image": "a.png", "split": "train"}, {"image": "b.png", "split": "test"}]
    write_rows(folder, *rows, more | {"task": "remove"}, rows[0])
    context = context_of(folder.parent, source="folder", path=str(folder), image_size=32)
    context.folder.mkdir()
    assert data.run(context) == {"train": 2, "test": 1}
    train = data.open_triplets(context, "train")
    flow_matching_targets.check_targets(context, train)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(("data: ", "rl: "))] == [
        f"data: {folder}/metadata.jsonl: duplicate triplets skipped: line 4 (as 1)",
        "data: triplets: train 2 (fill 1, removal 1); test 1 (fill 1)",
        "data: no test triplet of removal: judge accuracy and Good-Same-Bad cannot be measured "
        "for it",
        "rl: the flow-matching term uses the 1 of 2 training triplets that have a target",
    ]
    with pytest.raises(ValueError, match="but no training triplet has a target"):
        flow_matching_targets.check_targets(context, data.open_triplets(context, "test"))
    # a data set of an earlier version
    (features,) = context.folder.rglob("features.json")
    known = json.loads(features.read_text())
    del known["featuresDict"]["features"]["has_target"]
    features.write_text(json.dumps(known))
    with pytest.raises(ValueError, match="missing: has_target. .* rerun the stage data"):
        data.open_triplets(context, "train")
    tfds = context_of(folder.parent, source="tfds", path=str(context.folder))
    with pytest.raises(ValueError, match="features are missing: has_target$"):
        data.check(tfds)


def test_a_ready_set_without_index_gets_one_in_the_run(folder, tmp_path):
    made = context_of(tmp_path / "made", source="folder", path=str(folder), image_size=32)
    data.run(made)
    for path in made.folder.rglob("index-*.json"):
        path.unlink()
    context = context_of(tmp_path / "run", source="tfds", path=str(made.folder))
    context.folder.mkdir(parents=True)
    assert data.run(context) == {"train": 1, "test": 1}
    for path in made.folder.rglob("*.array_record-*"):
        path.write_bytes(bytes(path.stat().st_size))
    assert data.open_triplets(context, "test").column("photo") == ["b.png"]
