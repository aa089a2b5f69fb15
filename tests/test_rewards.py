"""A reward is chosen by name: a file of one's own takes the judge's place."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from compilations import compilations
from ml_collections import FrozenConfigDict
from processes import with_devices
from test_main import ROOT, get_config
from test_rl_step import KEY, OPTIMIZER, first_state, mesh_of

from onereward_jax.chain import plugins
from onereward_jax.chain.stage import StageContext
from onereward_jax.parallel import shard_batch
from onereward_jax.reward import PairScorer
from onereward_jax.stages.make_reward import reward_of
from onereward_jax.tasks import DIMENSIONS, TASKS
from onereward_jax.training.metrics import scalars
from onereward_jax.training.rl_config import RLConfig, RLModels
from onereward_jax.training.rl_step import make_rl_step

FILE = ROOT / "examples" / "reward.py"
EXAMPLE = plugins.load(str(FILE), "rl.reward")


def test_the_step_learns_through_any_differentiable_reward():
    """Its gradient reaches the policy: what it makes gets brighter, batch after batch."""
    mesh = mesh_of((1, 1, 1))
    config = RLConfig(
        num_steps=2,
        t1=1,
        t2=1,
        reward_upper_bound=1.0,
        reference_true_cfg_scale=1.0,
        policy_true_cfg_scale=1.0,
        prediction_true_cfg_scale=1.0,
        optimizer=OPTIMIZER,
    )
    reward = EXAMPLE.make_reward(None, mesh)
    models = RLModels(tiny_models.models().editor, reward.scorer((tiny_models.SIDE,) * 2), False)
    assert isinstance(models.scorer, PairScorer)
    step = make_rl_step(models, config, mesh)
    frozen = tiny_models.frozen()._replace(judge=reward.params)
    state, rewards = first_state(config), []
    with compilations() as compiled:
        for seed in range(12):
            asked = tiny_models.rl_batch(seed=seed)
            batch = {name: array for name, array in asked.items() if not name.startswith("query_")}
            state, metrics = step(state, frozen, shard_batch(batch, mesh), KEY)
            found = scalars(metrics)
            rewards.append(found["reward"])
    assert found["grad_norm"] > 1e-3 and found["refused"] == 0
    cells = {f"reward/{task}/{one}" for task in TASKS for one in DIMENSIONS[task]}
    assert cells <= set(found)
    assert np.mean(rewards[-4:]) > np.mean(rewards[:4]) + 0.02
    assert compiled.count("jit(step)") == 1


def context_of(name, tmp_path):
    config = get_config("mini")
    config.rl.reward = name
    return StageContext("rl", FrozenConfigDict(config), tmp_path, mesh_of((1, 1, 1)))


def test_a_reward_is_found_by_name_module_and_file(tmp_path):
    for name in ("reward", str(FILE)):
        reward = reward_of(context_of(name, tmp_path))
        assert type(reward.scorer((64, 64))).__name__ == EXAMPLE.Bright.__name__
        assert reward.queries is None and float(reward.params["scale"]) == 10.0


def test_a_make_that_takes_the_work_folder_is_given_it(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from onereward_jax.reward import Reward\n"
        "def make_reward(config, mesh, workdir):\n"
        "    given = (config.rl.reward, str(workdir), mesh.size)\n"
        "    return Reward(scorer=lambda size: None, params=given)\n"
    )
    reward = reward_of(context_of(str(file), tmp_path))
    assert reward.params == (str(file), str(tmp_path), 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.py", None, "nowhere.py': there is no such file"),
        ("no.such.module", None, "neither 'judge' nor an existing module or .py file"),
        ("mine.py", "x = 1", "mine.py': it has no function make_reward"),
        (
            "mine.py",
            "def make_reward(config, mesh): return 3",
            "returns int, not a onereward_jax.reward.R",
        ),
    ],
)
def test_what_is_no_reward_is_named_in_one_sentence(name, content, message, tmp_path):
    if name.endswith(".py"):
        name = str(tmp_path / name)
        if content is not None:
            Path(name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError)) as found:
        reward_of(context_of(name, tmp_path))
    assert str(found.value).startswith(f"config.rl.reward is {name!r}: ")
    assert message in str(found.value) and "\n" not in str(found.value)


def test_a_run_without_a_judge_reinforces_through_the_file(tmp_path):
    """The stages themselves; there are no candidates, answers or judge."""
    outcome = subprocess.run(
        [
            *(sys.executable, "-m", "onereward_jax.main", "--config=configs/mini.py:smoke"),
            f"--workdir={tmp_path / 'run'}",
            "--config.stages=('data','embed','rl')",
            f"--config.rl.reward={FILE}",
            "--config.rl.steps=2",
            "--config.rl.flow_matching_weight=0.0",
        ],
        cwd=ROOT,
        env=with_devices(1),
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    lines = (tmp_path / "run" / "rl" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["step"] == 2 and last["grad_norm"] > 0 and 0 < last["reward"] < 1
    assert (tmp_path / "run" / "rl" / "policy" / "config.json").is_file()
