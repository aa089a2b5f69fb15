"""benchmarks/gallery.py: which scenes it shows, what its sheets are made of, what the page says."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from processes import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import gallery
import gallery_sheet
from evidence_compare import Compared, kept_scores
from evidence_figures import figures, keep_points

from onereward_jax.chain.stage_record import COMPLETE, StageRecord, write_record
from onereward_jax.data.shard_writer import write_triplets
from onereward_jax.data.triplets import Triplets
from onereward_jax.mini.scene_source import MiniWorldSource
from onereward_jax.stages.evaluate.compared_edits import Pictures
from onereward_jax.tasks import TASKS, Task

SHOWN = (Task.FILL, Task.REMOVAL)
SCENES = 8


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """(work folder, best row, worst row of the removals) of a run whose policy is made by hand.

    The base leaves every scene as it is. So does the policy, except for one removal that it solves
    and one that it spoils; the last scene has no picture.
    """
    workdir = tmp_path_factory.mktemp("runs") / "by-hand"
    write_record(workdir / "rl", StageRecord(COMPLETE, {}, identity="0123"))
    overrides = ["--config.rl.steps=7", "--config.stages=('data','rl')"]
    told = {"config": "/somewhere/configs/mini.py:smoke", "overrides": overrides}
    (workdir / "command.json").write_text(json.dumps(told))
    folder = workdir / "evidence" / "0123"
    counts = {"test": dict.fromkeys(SHOWN, SCENES), "train": {Task.FILL: 1}}
    write_triplets(folder / "data", MiniWorldSource(counts, seed=5))
    triplets = Triplets(folder / "data", "test")
    ids, rows = triplets.column("id"), range(len(triplets) - 1)
    removals = [row for row in rows if TASKS[triplets.tasks[row]] is Task.REMOVAL]
    best, worst = removals[3], removals[5]
    base, policy = (
        Pictures(folder / "evaluate/pictures" / name, {row: ids[row] for row in rows})
        for name in ("base", "policy")
    )
    for pictures in (base, policy):
        pictures.folder.mkdir(parents=True)
        for row in rows:
            example = triplets[row]
            made = example["image"]
            if pictures is policy and row == best:
                made = example["target"]
            if pictures is policy and row == worst:
                noise = np.random.default_rng(0).integers(0, 256, made.shape, np.uint8)
                made = np.where(example["mask"] > 0, noise, made)
            pictures.write(row, made)
    scores = [kept_scores(triplets, one, map) for one in (policy, base)]
    oracle = {row: (scores[0][row], scores[1][row]) for row in rows}
    tasks = {row: TASKS[triplets.tasks[row]] for row in rows}
    margins = {"same": 0.03, "judge_same": 0.1, "margin": 0.1}
    keep_points(workdir, [figures(Compared(7, tasks, oracle, {}), **margins)])
    return workdir, best, worst


def test_the_draw_does_not_know_the_scores():
    leads = dict(zip(range(10, 40), np.random.default_rng(0).normal(size=30), strict=True))
    other = dict(zip(leads, reversed(leads.values()), strict=True))
    (drawn, best, worst), (drawn_of_other, *_) = (
        list(gallery.chosen(one, Task.FILL).values()) for one in (leads, other)
    )
    assert drawn == drawn_of_other and len(set(drawn)) == gallery.DRAWN
    assert drawn != list(gallery.chosen(leads, Task.REMOVAL).values())[0]
    ordered = sorted(leads, key=leads.get)
    assert best == ordered[::-1][: gallery.EXTREMES]
    assert worst == ordered[: gallery.EXTREMES]


def test_the_page_shows_best_and_worst_and_counts_all(compared, tmp_path):
    workdir, best, worst = compared
    found = gallery.read_comparison(workdir, map)
    assert list(found.base.names) == list(range(2 * SCENES - 1))  # those with a picture
    groups = list(gallery.chosen(found.leads(Task.REMOVAL), Task.REMOVAL).values())
    assert groups[1][0] == best and groups[2][0] == worst
    gallery.write_gallery(found, workdir, tmp_path)

    page = (tmp_path / "gallery.md").read_text()
    assert "`by-hand`, after 7 steps" in page
    removals, fills = (page.partition(f"## {title}")[2] for title in ("Object", "Image fill"))
    said = (
        r"better than the base's in (\d+) of (\d+) scenes, worse in\n(\d+), and the same in (\d+)"
    )
    assert re.search(said, fills).groups() == ("0", str(SCENES), "0", str(SCENES))
    good, total, bad, same = map(int, re.search(said, removals).groups())
    assert (good, total) == (1, SCENES - 1) and bad + same == SCENES - 2
    assert "--config=configs/mini.py:smoke" in page and "/somewhere" not in page
    assert """"--config.stages=('data','rl')\"""" in page
    assert "kept only its last weights" in page
    images = {path.name for path in (tmp_path / "images").iterdir()}
    assert images == {"gallery-fill.png", "gallery-removal.png", "result.png"}
    assert set(re.findall(r"\(images/([\w.-]+)\)", page)) == images - {"result.png"}

    # The second line of the sheet of removals, after the drawn ones, is the best.
    side, factor = 64, gallery.ENLARGED
    drawn = np.asarray(Image.open(tmp_path / "images/gallery-removal.png"))
    step = side * factor + gallery_sheet.BETWEEN + 2 * gallery_sheet.LINE
    y = 3 * gallery_sheet.LINE + gallery.DRAWN * step + gallery_sheet.BETWEEN
    x = 2 * (side * factor + gallery_sheet.GAP)
    shown = drawn[y : y + side * factor, x : x + side * factor]
    truth = found.triplets[best]["target"]
    np.testing.assert_array_equal(shown[1::factor, 1::factor], truth)


def test_a_mask_is_outlined_inside_of_its_border_and_nothing_else_changes():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (8, 8, 3), np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[2:8, 3:6] = 255  # down to the border of the picture
    drawn = np.asarray(gallery_sheet.outlined(pixels, mask, 5))
    line = (drawn == gallery_sheet.OUTLINE).all(-1)
    expected = np.zeros((40, 40), bool)
    expected[10:40, 15:30] = True
    expected[12:38, 17:28] = False
    np.testing.assert_array_equal(line, expected)
    plain = np.asarray(gallery_sheet.enlarged(pixels, 5))
    np.testing.assert_array_equal(drawn[~line], plain[~line])


def test_a_run_that_was_not_compared_is_told_how(compared, tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="there is no stage rl in this folder"):
        gallery.read_comparison(workdir, map)
    shutil.copytree(compared[0] / "rl", workdir / "rl")
    with pytest.raises(FileNotFoundError, match=r"first run python benchmarks/other_scenes.py "):
        gallery.read_comparison(workdir, map)
