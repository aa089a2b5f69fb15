"""benchmarks/evidence.py: a grid of two tiny runs from training to tables, and resumed."""

import json
import shutil
import subprocess
import sys

import pytest
from processes import ROOT, with_devices

sys.path.insert(0, str(ROOT / "benchmarks"))

import evidence_grid
from evidence_rows import good_minus_bad, read_rows, write_row
from evidence_runs import TRAINED, link_stages
from ml_collections import FrozenConfigDict

from onereward_jax.chain.stage_record import COMPLETE, StageRecord, write_record
from onereward_jax.chain.staleness import identity, reads_of, stage_inputs
from onereward_jax.stages.registry import STAGES

GRID = """
from evidence_grid import Run

TINY = {"rl.keep_every": 2, "candidates.train": 8, "candidates.test": 4, "reward.steps": 2}
GRID = (
    Run("one", "as it is", TINY),
    Run("two", "fewer fills", {**TINY, "rl.task_probabilities.fill": 0.1}),
)
"""


def test_every_declared_run_has_fields_of_the_config():
    grid = evidence_grid.read_grid(ROOT / "benchmarks/evidence_grid.py")
    assert len({run.name for run in grid}) == len(grid)
    for run in grid:
        config = evidence_grid.settled(run, str(ROOT / evidence_grid.CONFIG), seed=3)
        assert config.seed == 3
        assert config.rl.steps >= 50
    with pytest.raises(ValueError, match="wrong: rl.stepz is not a field of"):
        wrong = evidence_grid.Run("wrong", "", {"rl.stepz": 1})
        evidence_grid.settled(wrong, str(ROOT / evidence_grid.CONFIG), 0)
    with pytest.raises(ValueError, match="no run 'longer'; there are quickstart, long"):
        evidence_grid.selected("longer", evidence_grid.GRID)


def finish(config, folder):
    """Records of all stages of a run, without their output."""
    identities = {}
    for stage in (one for one in STAGES if one.name in TRAINED):
        earlier = {name: identities[name] for name in reads_of(stage, config) if name in TRAINED}
        inputs = stage_inputs(stage, config, folder, earlier)
        identities[stage.name] = identity(stage, config, inputs)
        (folder / stage.name).mkdir(parents=True)
        record = StageRecord(COMPLETE, inputs, identities[stage.name])
        write_record(folder / stage.name, record)


def test_a_run_links_to_the_stages_of_an_equal_run_and_to_no_others(tmp_path):
    def settled(overrides):
        run = evidence_grid.Run("", "", overrides)
        return FrozenConfigDict(evidence_grid.settled(run, f"{ROOT}/{evidence_grid.CONFIG}", 0))

    finish(settled({}), tmp_path / "first")
    expected = {
        "equal": ({}, TRAINED),
        "other_rl": ({"rl.flow_matching_weight": 2.0}, TRAINED[:-1]),
        "other_judge": ({"reward.steps": 500}, TRAINED[:-2]),
    }
    for name, (overrides, linked) in expected.items():
        (tmp_path / name).mkdir()
        others = [tmp_path / "first"]
        assert link_stages(settled(overrides), tmp_path / name, others) == list(linked)
        assert {one.name for one in (tmp_path / name).iterdir()} == set(linked)
    # A link to what does not fit any more is removed.
    changed = settled({"rl.flow_matching_weight": 2.0})
    assert link_stages(changed, tmp_path / "equal", [tmp_path / "first"]) == []
    assert not (tmp_path / "equal" / "rl").exists()


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    """(run the command with flags, its folder)."""
    folder = tmp_path_factory.mktemp("evidence")
    (folder / "grid.py").write_text(GRID)
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs/results.md", folder / "docs/results.md")

    def run(*flags, fails=False):
        done = subprocess.run(
            [
                *(sys.executable, "benchmarks/evidence.py", f"--out={folder}/out"),
                *(f"--grid={folder}/grid.py", "--config=configs/mini.py:smoke"),
                *("--scenes=2", "--curve=1", "--processes=1", f"--docs={folder}/docs", *flags),
            ],
            cwd=ROOT,
            env=with_devices(1) | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert bool(done.returncode) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run, folder


@pytest.mark.slow
def test_a_grid_runs_resumes_and_writes_its_tables(evidence):
    run, folder = evidence
    told = run("--seeds=0")
    rows = read_rows(folder / "out/rows.jsonl")
    assert [(row["name"], row["seed"]) for row in rows] == [("one", 0), ("two", 0)]
    for row in rows:
        assert [point["step"] for point in row["points"]] == [2, 4]
        early, last = (point["good_same_bad"] for point in row["points"])
        assert last.keys() == early.keys() == {"oracle", "oracle by the hidden truth", "judge"}
        assert {sum(cell[name] for name in ("good", "same", "bad"))
                for cell in last["oracle"].values()} == {2}  # fmt: skip
        assert len(last["oracle"]) == 4
    # Both runs have the same data and the same judge; the second has links to them.
    second = folder / "out/runs/two-0"
    linked = {path.name for path in second.iterdir() if path.is_symlink()}
    assert linked == {"data", "embed", "candidates", "annotate", "reward"}
    assert (second / "rl").is_dir() and not (second / "rl").is_symlink()
    assert len(list((folder / "out/scenes/seed-1000").glob("base-*/*.png"))) == 8

    page = (folder / "docs/results.md").read_text()
    assert "| one | as it is | 4, " in page
    assert "evidence-two.png" in page and (folder / "docs/images/evidence-two.png").is_file()
    assert "not run yet" in page  # the claims are about other runs

    # benchmarks/other_scenes.py compares such a run with its own config and flags.
    command = ["benchmarks/other_scenes.py", str(second), f"--share={folder}/out/scenes"]
    printed = subprocess.run(
        [sys.executable, *command, "--scenes=2", "--curve=1", "--processes=1"],
        cwd=ROOT,
        env=with_devices(1) | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "| 4 | oracle |" in printed
    assert len(list((folder / "out/scenes/seed-1000").glob("base-*/*.png"))) == 8

    # benchmarks/gallery.py shows such a run.
    command = ["benchmarks/gallery.py", f"{folder}/out/runs/two-0", f"--docs={folder}/docs"]
    subprocess.run(
        [sys.executable, *command, "--processes=1"],
        cwd=ROOT,
        env=with_devices(1) | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    gallery = (folder / "docs/gallery.md").read_text()
    assert "`two-0`, after 4 steps" in gallery and "gallery-curves.png" in gallery
    assert "--config.rl.task_probabilities.fill=0.1" in gallery
    assert len(list((folder / "docs/images").glob("gallery-*.png"))) == 5

    assert "one, seed 0: has a row" in run("--seeds=0")
    assert "stopped after 0.0 hours, before one, seed 1" in run("--seeds=1", "--hours=0")
    assert len(read_rows(folder / "out/rows.jsonl")) == 2
    again = (folder / "docs/results.md").read_text()
    assert again == page
    assert "no run 'three'" in run("--select=three", fails=True)
    assert told


def test_figures_over_seeds_come_from_the_rows_alone(tmp_path):
    def row(seed, good, same, bad):
        cell = {"good": good, "same": same, "bad": bad, "difference": (good - bad) / 100}
        point = {"step": 5, "good_same_bad": {"oracle": {"fill": cell}}}
        return {"name": "a", "seed": seed, "points": [point]}

    path = tmp_path / "rows.jsonl"
    for one in (row(0, 1, 98, 1), row(1, 30, 60, 10), row(0, 40, 50, 10)):
        write_row(path, one)
    rows = read_rows(path)
    found = good_minus_bad(rows, "oracle", "fill")
    assert sorted(found.seeds) == [0.2, 0.3]  # the later row of a seed counts
    assert found.value == pytest.approx(0.25)
    assert 0.25 - 0.1 < found.low < 0.2 and 0.3 < found.high < 0.25 + 0.1
    assert good_minus_bad(rows, "judge", "fill") is None
    path.write_text(path.read_text() + json.dumps({"name": "a"}) + "\n")
    with pytest.raises(ValueError, match=r"rows.jsonl, line 4: not a row"):
        read_rows(path)
