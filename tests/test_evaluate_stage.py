"""The stage `evaluate`: pictures made once, truth only where it is known."""

import dataclasses
import json
import os
import pathlib

import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from PIL import Image

import onereward_jax
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.config_files import load_config
from onereward_jax.data.folder_source import FolderSource
from onereward_jax.data.shard_writer import write_triplets
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import make_mesh
from onereward_jax.stages.evaluate import evaluate_check
from onereward_jax.stages.evaluate.compared_edits import Pictures, make_edits
from onereward_jax.stages.evaluate.judge_verdicts import judge_preferences
from onereward_jax.stages.evaluate.report_contents import picture_grids, task_metrics
from onereward_jax.tasks import DIMENSIONS, TASKS, Task

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
SIZE = 64
WITH_TARGET = {"fill": 2, "removal": 0}
"""How many of the four test rows of each task have one."""


def write_folder(folder):
    """Four test rows of each task and one to train on; the first ones have a target."""
    rng, rows = np.random.default_rng(0), []
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    for task, known in WITH_TARGET.items():
        for number in range(5):
            row = {"mask": "mask.png", "task": task, "prompt": f"{number} red apples"}
            for part in ("image", "target")[: 2 if number < known else 1]:
                row[part] = f"{task}-{number}-{part}.png"
                noise = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
                Image.fromarray(noise).save(folder / row[part])
            rows.append(row | {"split": "train" if number == 4 else "test"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def context(tmp_path):
    """The stage on somebody's pictures, whose earlier stages but `data` are missing."""
    (tmp_path / "photos").mkdir()
    write_folder(tmp_path / "photos")
    workdir = tmp_path / "run"
    write_triplets(workdir / "data", FolderSource(tmp_path / "photos", SIZE))
    config = load_config(f"{ROOT}/configs/mini.py:smoke,folder")
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    return StageContext("evaluate", FrozenConfigDict(config), workdir, mesh)


def written(context, triplets, editor, pixels):
    """`pixels` [h, w, 3] uint8 as the pictures that an editor made of all triplets."""
    names = dict(enumerate(triplets.column("id")))
    pictures = Pictures(context.folder / "pictures" / editor, names)
    pictures.folder.mkdir(parents=True)
    for row, picture in enumerate(pixels):
        Image.fromarray(picture).save(pictures.path(row))
    return pictures


def test_pictures_that_are_there_are_not_made_again(context):
    triplets = Triplets(context.workdir / "data", "test")
    rows, rng = range(len(triplets)), np.random.default_rng(0)
    with pytest.raises(FileNotFoundError, match="prompts"):  # of the stage `embed`
        make_edits(context, triplets, rows)

    made = rng.integers(0, 256, (2, len(rows), SIZE, SIZE, 3), np.uint8)
    for editor, pixels in zip(("base", "policy"), made):
        written(context, triplets, editor, pixels)
    # No model is opened now, of which the policy's would be missing.
    base, policy = make_edits(context, triplets, rows)
    for row in rows:
        np.testing.assert_array_equal(base[row], made[0, row])
        np.testing.assert_array_equal(policy[row], made[1, row])

    os.remove(policy.path(3))
    assert base.missing() == [] and policy.missing() == [3]
    policy.write(3, made[0, 0])
    assert policy.missing() == []
    np.testing.assert_array_equal(policy[3], made[0, 0])
    assert not list(policy.folder.glob("*.partial"))


def test_truth_is_shown_and_measured_only_where_there_is_a_target(context):
    triplets = Triplets(context.workdir / "data", "test")
    rows = range(len(triplets))
    idle = [triplets[row]["image"] for row in rows]
    results = written(context, triplets, "base", idle)  # of an editor that does nothing
    found = task_metrics(triplets, rows, results, {})
    assert (found[Task.FILL].results, found[Task.FILL].truths) == (4, 2)
    assert found[Task.FILL].psnr < 15 and found[Task.FILL].drift == 0
    assert (found[Task.REMOVAL].results, found[Task.REMOVAL].truths) == (4, 0)
    assert found[Task.REMOVAL].psnr is None and found[Task.REMOVAL].ssim is None
    assert found[Task.REMOVAL].saturation > 0

    grids = picture_grids(triplets, rows, results, results, count=3)
    assert [row.truth is not None for row in grids[Task.FILL]] == [True, True, False]
    assert [row.truth is not None for row in grids[Task.REMOVAL]] == [False] * 3


def test_each_triplet_is_judged_by_its_own_pictures(context):
    """Of which half are the same ones: there the judge, asked in both orders, prefers neither."""
    context = changed(context, **{"mesh.data": 2, "evaluate.batch_size": 8})
    context = dataclasses.replace(context, mesh=make_mesh(2, 2, 2))
    triplets = Triplets(context.workdir / "data", "test")
    rng, rows = np.random.default_rng(0), [6, 2, 7, 1, 0, 4, 5]  # and a place that is filled up
    made = rng.integers(0, 256, (2, len(triplets), SIZE, SIZE, 3), np.uint8)
    same = [2, 5, 6]
    made[1, same] = made[0, same]
    pictures = tuple(
        written(context, triplets, editor, pixels)
        for editor, pixels in zip(("base", "policy"), made)
    )
    judge = ROOT / "onereward_jax" / "mini" / "models" / "judge"
    found = judge_preferences(context, triplets, rows, pictures, judge, what="judge")
    assert sorted(found) == sorted(rows)
    for row, by_dimension in found.items():
        assert tuple(by_dimension) == DIMENSIONS[TASKS[triplets.tasks[row]]]
        values = np.array(list(by_dimension.values()))
        assert ((values > 0) & (values < 1)).all()
        assert (np.abs(values - 0.5) < 1e-6).all() == (row in same), (row, values)


def changed(context, **fields):
    config = context.config.as_configdict()
    config.unlock()
    config.update_from_flattened_dict(fields)
    return dataclasses.replace(context, config=FrozenConfigDict(config))


def test_what_cannot_be_evaluated_is_found_before_anything_runs(context, tmp_path):
    evaluate_check.check(context)
    judge = ROOT / "onereward_jax" / "mini" / "models" / "judge"
    evaluate_check.check(changed(context, **{"evaluate.judge": str(judge)}))

    with pytest.raises(FileNotFoundError, match=r"config\.evaluate\.judge: there is no folder"):
        evaluate_check.check(changed(context, **{"evaluate.judge": str(tmp_path / "none")}))
    editor = str(judge.with_name("editor"))
    with pytest.raises((ValueError, FileNotFoundError), match=r"config\.evaluate\.judge: "):
        evaluate_check.check(changed(context, **{"evaluate.judge": editor}))
    with pytest.raises(ValueError, match=r"config\.evaluate\.batch_size: batch size 6 is not"):
        evaluate_check.check(changed(context, **{"evaluate.batch_size": 6}))
    none = {f"evaluate.triplets.{task.value}": 0 for task in TASKS}
    with pytest.raises(ValueError, match=r"config\.evaluate\.triplets is 0 for every task"):
        evaluate_check.check(changed(context, **none))
