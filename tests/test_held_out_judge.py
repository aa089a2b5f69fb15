"""A held-out judge: other photographs, no gradient, and the end of RL when the gap opens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from ml_collections import FrozenConfigDict

from onereward_jax.annotation.labelled_pairs import LabelledPair
from onereward_jax.parallel import make_mesh, shard_batch
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.reward.judge_panel import JudgePanel
from onereward_jax.stages.held_out_gap import why_stopped
from onereward_jax.stages.judge_parts import HELD_OUT, check_parts, divided, judge_parts
from onereward_jax.stages.photographs import grouped
from onereward_jax.tasks import Dimension, Task
from onereward_jax.training.held_out_judge import ENOUGH, WINDOW, is_open, next_gap, smoothed
from onereward_jax.training.metrics import Mean, scalars
from onereward_jax.training.optimizer import OptimizerConfig
from onereward_jax.training.rl_config import RLConfig
from onereward_jax.training.rl_step import first_rl_state, make_rl_step
from onereward_jax.training.train_state import shardings_of

CONFIG = RLConfig(
    reward_upper_bound=0.95,
    num_steps=2,
    t1=1,
    t2=1,
    reference_true_cfg_scale=1.0,
    policy_true_cfg_scale=1.0,
    prediction_true_cfg_scale=1.0,
    optimizer=OptimizerConfig(learning_rate=0.01, eps=1e-2, clip_norm=1e6),
    held_out_every=2,
    stop_at_gap=1e-6,
)
KEY = jax.random.key(7)
MESH = make_mesh(1, 2, 1, devices=jax.devices()[:2])


def test_step_with_a_panel_and_a_held_out_judge():
    """One compiled step: who gets gradient, what is measured when, and the end, bit for bit."""
    models, (transformer, _, _, judge) = tiny_models.models(), tiny_models.weights()
    panel = JudgePanel(models.scorer, judges=2, orders="both", ensemble="least")
    held_out = JudgePanel(models.scorer, orders="both")
    step = make_rl_step(dataclasses.replace(models, scorer=panel, held_out=held_out), CONFIG, MESH)
    other = tiny_models.lively(judge, 9, 0.05)
    frozen = tiny_models.frozen()._replace(
        judge=jax.tree.map(lambda *leaves: np.stack(leaves), judge, other), held_out=other
    )
    shardings = shardings_of(abstract_params(models.editor, MESH).transformer)
    batch = shard_batch(tiny_models.rl_batch(), MESH)

    def start():
        return first_rl_state(CONFIG, jax.device_put(transformer, shardings), MESH)

    def taken(state, frozen=frozen):
        state, metrics = step(state, frozen, batch, KEY)
        return jax.device_get(state), scalars(metrics)

    first, metrics = taken(start())
    assert not any("held_out_reward" in name for name in metrics)  # in every second step
    np.testing.assert_array_equal(first.gap, 0.0)
    changed, _ = taken(start(), frozen._replace(held_out=judge))
    for ours, theirs in zip(jax.tree.leaves(first), jax.tree.leaves(changed), strict=True):
        np.testing.assert_array_equal(ours, theirs)  # the held-out judge teaches nothing

    def placed(state):
        return jax.device_put(state, shardings_of(start()))

    second, metrics = taken(placed(first))
    gap = metrics["reward"] - metrics["held_out_reward"]
    assert metrics["held_out_gap"] == pytest.approx(gap, abs=1e-5)
    assert gap <= 1e-6  # one of the two judges is the held-out one, and the least counts
    np.testing.assert_allclose(second.gap, [gap, 1.0], rtol=1e-5, atol=1e-7)

    def told(state):
        return why_stopped(CONFIG, state._replace(gap=jnp.asarray(state.gap)))

    assert not told(second)

    # Enough measurements of a wide gap: the next one ends it, from a state read from the disk too.
    wide = first._replace(gap=np.array([7.5, 7.5], np.float32))
    ended, metrics = taken(placed(wide))
    assert told(ended).startswith("stopped at step 2: the judge's reward is 0.")
    assert metrics["held_out_gap_smoothed"] == pytest.approx(
        float(smoothed(jnp.asarray(ended.gap)))
    )
    for field in ("params", "opt_state", "ema", "refused"):
        kept, before = getattr(ended, field), getattr(first, field)
        for ours, theirs in zip(jax.tree.leaves(kept), jax.tree.leaves(before), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    later, _ = taken(placed(taken(placed(ended))[0]))
    np.testing.assert_array_equal(later.gap, ended.gap)  # it stays


def test_the_gap_is_smoothed_and_needs_enough_measurements():
    rng, gap, decay = np.random.default_rng(0), jnp.zeros(2), 1.0 - 1.0 / WINDOW
    config, values = dataclasses.replace(CONFIG, stop_at_gap=0.9), rng.uniform(0.95, 1.0, ENOUGH)
    for number, value in enumerate(values, 1):
        assert not is_open(config, gap)
        gap = next_gap(config, gap, Mean(jnp.float32(2.0 * value), jnp.float32(2.0)))
        same = next_gap(config, gap, Mean(jnp.float32(0.0), jnp.float32(0.0)))  # not measured
        np.testing.assert_array_equal(same, gap)
        weights = decay ** np.arange(number)[::-1]
        mean = np.average(values[:number], weights=weights)
        assert float(smoothed(gap)) == pytest.approx(mean, rel=1e-5)
    assert is_open(config, gap)


def test_a_gap_without_a_held_out_judge_is_refused():
    with pytest.raises(ValueError, match="stop_at_gap is 0.1, but no held-out judge"):
        RLConfig(stop_at_gap=0.1)


def pairs(photos=12, each=4):
    """`each` pairs of several sources per photograph."""
    made = []
    for number in range(photos * each):
        made.append(
            LabelledPair(
                split="train",
                source=f"s{number}",
                task=Task.REMOVAL,
                dimension=Dimension.REMOVAL_QUALITY,
                prompt="",
                folder="candidates",
                first="a.png",
                second="b.png",
                size=(16, 16),
                label=1.0,
                votes=1,
                share=1.0,
                photo=f"p{number % photos}",
            )
        )
    return made


def config_of(**fields):
    section = {"judges": 3, "judge_share": 0.5, "held_out": 0.25, "validation": 0.2}
    return FrozenConfigDict({"seed": 3, "reward": section | fields})


def photos(found):
    return {pair.photo for pair in found}


def test_the_held_out_judge_shares_no_photograph_with_the_others():
    parts = judge_parts(config_of(), pairs())
    assert [part.name for part in parts] == ["judge", "judge-2", "judge-3", HELD_OUT]
    assert len({part.seed for part in parts}) == 4
    *ours, held_out = parts
    seen = [photos(part.train) | photos(part.validation) for part in ours]
    hidden = photos(held_out.train) | photos(held_out.validation)
    assert len(hidden) == 3 and not hidden & set().union(*seen)
    assert len(set(map(frozenset, seen))) == 3  # each its own share
    for part in parts:
        assert part.train and part.validation
        assert not photos(part.train) & photos(part.validation)
    alone = judge_parts(config_of(judges=1, judge_share=1.0, held_out=0.0, validation=0.0), pairs())
    assert [(part.name, part.seed, len(part.train)) for part in alone] == [("judge", 3, 48)]
    with pytest.raises(ValueError, match="config.reward.held_out is 0.25: with so few photographs"):
        judge_parts(config_of(), pairs(photos=1))


def test_settings_that_contradict_each_other_are_refused():
    models = {"models": {"judge": "stage:reward/judge"}}
    with pytest.raises(ValueError, match='expected config.later_rounds.judge "first"'):
        check_parts(FrozenConfigDict(config_of(keep_best=False).to_dict() | models))
    with pytest.raises(ValueError, match="config.reward.validation is 0"):
        check_parts(config_of(keep_best=True, validation=0.0))


def test_triplets_of_one_photograph_stay_together():
    """Linked by photograph, by equal pixels, by a candidate in common, over several links."""
    links = {
        ("candidates", "1"): ["photo a"],
        ("candidates", "2"): ["photo a", "pixels x"],
        ("preferences-0", "3"): ["source 3", "pixels x"],
        ("preferences-0", "4"): ["source 4"],
        ("candidates", "5"): ["photo b", "pixels y"],
    }
    found = grouped(links)
    assert (
        len({found["candidates", "1"], found["candidates", "2"], found["preferences-0", "3"]}) == 1
    )
    assert len(set(found.values())) == 3
    drawn, rest = divided(pairs(), 0.5, 0, "x")
    assert len(drawn) == len(rest) == 24 and not photos(drawn) & photos(rest)
