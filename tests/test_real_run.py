"""A real run in small: photographs without targets, people's answers, several processes, no extras.

The parts are those of `launch/rehearse.sh` (onereward_jax/rehearsal.py); here the photographs are
real ones, nothing but the runtime dependencies can be imported by the run, and its numbers are
those of a run in one process that nobody interrupted.
"""

import importlib.util
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from onereward_jax.common.user_errors import WAITING
from onereward_jax.rehearsal import Run, answer, go_further, to_the_export, write_folder
from onereward_jax.training.metrics_jsonl import read_metrics

RUNTIME_ONLY = ("tests/runtime_only.py", "onereward_jax.main")
MEASURED_TIMES = ("seconds", "goodput", "memory", "wait")
"""Parts of the names of what differs from run to run."""


def photographs():
    """Of several shapes, from packages that the tests install."""
    scikit_image, scikit_learn = (
        pathlib.Path(importlib.util.find_spec(package).origin).parent
        for package in ("skimage", "sklearn")
    )
    names = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")
    return [
        *(scikit_image / "data" / name for name in names),
        *(scikit_learn / "datasets" / "images" / name for name in ("china.jpg", "flower.jpg")),
    ]


def run_of(workdir, folder, processes, devices, mesh):
    sizes = zip(("data", "fsdp", "tensor"), mesh)
    flags = (
        "--config=configs/rehearsal.py",
        "--config.models.remat=none",  # less to compile; test_chain.py has the default
        f"--config.data.path={folder}",
        *(f"--config.mesh.{axis}={size}" for axis, size in sizes),
    )
    return Run(workdir, flags, processes, devices, RUNTIME_ONLY)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """All runs keep whatever they compile; conftest names the folder."""
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    yield
    del os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("real") / "photographs"
    write_folder(photographs(), made)
    return made


@pytest.fixture(scope="module")
def alone(folder):
    """One process with four devices, from photographs to the export, uninterrupted."""
    run = run_of(folder.with_name("alone"), folder, 1, 4, (2, 2, 1))
    run.finish(code=WAITING)
    answer(run.questions, "anna")
    answer(run.questions, "ben", (0.0, 0.5))
    run.finish()
    return run


@pytest.fixture(scope="module")
def together(folder):
    """Two processes, killed in each training."""
    run = run_of(folder.with_name("together"), folder, 2, 2, (2, 2, 1))
    to_the_export(run)
    return run


def same_numbers(run, alone):
    pictures = sorted((alone.workdir / "candidates").rglob("*.png"))
    assert len(pictures) == 72
    for path in pictures:
        theirs, ours = (
            np.asarray(Image.open(one), np.int32)
            for one in (path, run.workdir / path.relative_to(alone.workdir))
        )
        assert np.abs(theirs - ours).max() <= 1, path
    for stage in ("reward", "rl"):
        theirs, ours = (read_metrics(one.workdir / stage / "metrics.jsonl") for one in (alone, run))
        assert [row["step"] for row in ours] == [row["step"] for row in theirs] == [1, 2, 3, 4]
        for row, expected in zip(ours, theirs):
            names = [name for name in expected if not any(t in name for t in MEASURED_TIMES)]
            found = [row[name] for name in names]
            assert found == pytest.approx([expected[name] for name in names], rel=0.02, abs=2e-3)
    theirs, ours = (
        json.loads((one.workdir / "evaluate" / "report" / "summary.json").read_text())["gsb"]
        for one in (alone, run)
    )
    assert ours == theirs


def test_processes_that_were_killed_end_with_the_numbers_of_one_alone(alone, together):
    same_numbers(together, alone)


def test_exported_folders_are_opened_by_diffusers_and_transformers(together):
    import torch
    from diffusers import FluxFillPipeline
    from transformers import Qwen2_5_VLForConditionalGeneration

    export = together.workdir / "export"
    FluxFillPipeline.from_pretrained(export / "editor")
    judge, told = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        export / "judge", output_loading_info=True
    )
    assert not told["missing_keys"] and not told["unexpected_keys"]
    assert all(torch.isfinite(weight).all() for weight in judge.parameters())


@pytest.mark.slow
def test_more_steps_go_on_and_more_answers_train_again(together):
    go_further(together, steps=6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices", "mesh"),
    [(2, 2, (2, 1, 2)), (2, 2, (1, 2, 2)), (4, 1, (2, 2, 1)), (4, 1, (2, 1, 2))],
)
def test_other_meshes_and_more_processes_give_the_same_numbers(
    alone, folder, processes, devices, mesh
):
    name = f"{processes}-{'x'.join(map(str, mesh))}"
    run = run_of(folder.with_name(name), folder, processes, devices, mesh)
    to_the_export(run)
    same_numbers(run, alone)
