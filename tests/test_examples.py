"""Each file of examples/ does what it shows, in a run that edits no file of the package.

`examples/reward.py` is run in test_rewards.py.
"""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from PIL import Image
from test_main import ROOT, get_config

from onereward_jax.annotation.annotator_interface import Asked
from onereward_jax.chain.plugins import load, maker
from onereward_jax.stages.rl_settings import method_of
from onereward_jax.tasks import Task

EXAMPLES = ROOT / "examples"
SMALL = (
    *("--config.candidates.train=4", "--config.candidates.test=4"),
    *("--config.candidates.num_steps=(1,1)", "--config.candidates.batch_size=8"),
    *("--config.reward.steps=1", "--config.reward.batch_size=2", "--config.reward.log_every=1"),
    *("--config.reward.optimizer.schedule=constant", "--config.rl.optimizer.schedule=constant"),
    *("--config.rl.steps=2", "--config.rl.num_steps=2", "--config.rl.t1=1", "--config.rl.t2=1"),
    *("--config.rl.log_every=1", "--config.rl.batch_size=2", "--config.evaluate.num_steps=1"),
    *("--config.evaluate.batch_size=8", "--config.evaluate.pictures=1"),
)


def run(workdir, *arguments, config="configs/mini.py:folder", **environment):
    outcome = subprocess.run(
        [sys.executable, "-m", "onereward_jax.main", f"--workdir={workdir}"]
        + ([f"--config={config}"] if config else [])
        + list(arguments),
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""} | environment,  # one device, as most readers have
        capture_output=True,
        text=True,
        check=False,
    )
    return outcome


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Smooth pictures of random colours."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(6):
        colours = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((80, 64), Image.BICUBIC).save(folder / f"{number}.png")
    return folder


def test_the_source_gives_the_same_triplet_again_and_knows_the_perfect_edit(photos):
    source = source_of(photos)
    for row in (0, 5):
        first, again = source.example(row), source.example(row)
        assert first.id == again.id and first.task is Task.REMOVAL
        outside = first.mask == 0
        assert (first.image[outside] == first.target[outside]).all()
        assert (first.image != first.target)[~outside].any()
    assert len(source.splits) == 24 and source.splits.count("test") == 8


def source_of(photos):
    config = get_config("mini")
    config.data.update(source=str(EXAMPLES / "data_source.py"), path=str(photos))
    return maker(FrozenConfigDict(config), "data.source")(config)


def test_the_annotator_prefers_what_is_near_the_target(photos):
    example = source_of(photos).example(0)
    worse = np.where(example.mask[..., None] > 0, 255 - example.target, example.target)
    pictures = [worse, example.target, example.image]
    fields = {"mask": example.mask[..., None], "target": example.target, "has_target": True}
    annotator = load(str(EXAMPLES / "annotator.py"), "annotate.by").make_annotator(None)
    asked = Asked("train/a", "train", Task.FILL, fields, pictures)
    assert {pair[0] for pair in annotator.answer(asked).values()} == {1}
    asked = asked._replace(pictures=[worse, worse])
    assert set(annotator.answer(asked).values()) == {None}


def test_the_algorithm_never_ends_teaching_and_renews_its_reference():
    config = get_config("mini")
    config.rl.algorithm = str(EXAMPLES / "algorithm.py")
    algorithm = method_of(FrozenConfigDict(config)).algorithm
    yes = jnp.log(jnp.array([[0.2, 0.99]]))
    no = jnp.log1p(-jnp.exp(yes))
    np.testing.assert_allclose(algorithm.loss(yes, no, 0.5), -yes, rtol=1e-4)
    assert (jax.grad(lambda yes: algorithm.loss(yes, no, 0.5).sum())(yes) < 0).all()
    assert [float(algorithm.decay(0.9, step)) for step in (0, 48, 49, 50)] == [1, 1, 0, 1]


def test_a_run_takes_source_and_annotator_from_files_and_learns_from_the_answers(photos, tmp_path):
    """The last stage is DPO, without any judge: its loss begins at log 2."""
    outcome = run(
        tmp_path / "run",
        f"--config.data.source={EXAMPLES / 'data_source.py'}",
        f"--config.data.path={photos}",
        f"--config.annotate.by={EXAMPLES / 'annotator.py'}",
        "--config.stages=('data','embed','candidates','annotate','rl')",
        *[one for one in SMALL if "candidates" in one or ".rl." in one],
        *("--config.rl.algorithm=dpo", "--config.rl.lora.rank=2"),
    )
    assert outcome.returncode == 0, outcome.stderr
    record = json.loads((tmp_path / "run" / "annotate" / "stage.json").read_text())
    assert record["results"]["pairs"] > 0
    lines = (tmp_path / "run" / "rl" / "metrics.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-3)  # beta magnifies rounding
    assert last["step"] == 2 and last["grad_norm"] > 0
    assert (tmp_path / "run" / "rl" / "policy").is_dir()


@pytest.fixture(scope="module")
def recoloured(photos, tmp_path_factory):
    """A folder whose rows are of the task of examples/task.toml."""
    folder = tmp_path_factory.mktemp("recolour")
    mask = np.zeros((64, 80), np.uint8)
    mask[16:48, 24:56] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    rows = []
    for number, path in enumerate(sorted(photos.iterdir())):
        pixels = np.asarray(Image.open(path))
        Image.fromarray(pixels).save(folder / path.name)
        red = np.where(mask[..., None] > 0, pixels[..., [1, 2, 0]], pixels)
        Image.fromarray(red).save(folder / f"red_{path.name}")
        rows.append(
            {
                "image": path.name,
                "mask": "mask.png",
                "target": f"red_{path.name}",
                "task": "recolour",
                "prompt": "red",
                "split": "test" if number < 2 else "train",
            }
        )
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_run_learns_a_task_of_ones_own_by_an_algorithm_of_ones_own(recoloured, tmp_path):
    """Data, answers, judge, reinforcement and report know task and dimensions from the file."""
    workdir, tasks = tmp_path / "run", {"ONEREWARD_TASKS": str(EXAMPLES / "task.toml")}
    outcome = run(
        workdir,
        f"--config.data.path={recoloured}",
        f"--config.annotate.by={EXAMPLES / 'annotator.py'}",
        f"--config.rl.algorithm={EXAMPLES / 'algorithm.py'}",
        "--config.evaluate.weights=policy",
        *SMALL,
        **tasks,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "accuracy_recolour" in outcome.stdout.replace("\n", "")
    last = json.loads((workdir / "rl" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"reward/recolour/text_alignment", "reward/recolour/form"} <= set(last)
    assert last["grad_norm"] > 0 and last["zero_gradient"] == 0.0
    summary = json.loads((workdir / "evaluate" / "report" / "summary.json").read_text())
    assert all(set(found) == {"recolour"} for found in summary["gsb"].values())
    assert "object recolouring" in (workdir / "evaluate" / "report" / "index.html").read_text()
    judge = json.loads((workdir / "reward" / "judge" / "onereward_query.json").read_text())
    template = judge["template"]
    assert template["words"]["form"] and template["tasks"]["recolour"] == "object recolouring"

    again = run(workdir, "--resume", config="", **tasks)
    assert again.returncode == 0, again.stderr
    assert (again.stdout + again.stderr).count("complete and unchanged") == 8
    forgotten = run(workdir, "--resume", config="")
    assert forgotten.returncode != 0
    assert "was started with ONEREWARD_TASKS=" in forgotten.stderr
