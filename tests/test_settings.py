"""From a config to settings: one guidance for training and use, p_k, weights, sentences."""

import re

import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict
from test_main import get_config
from test_pairs_drawn import Many

from onereward_jax.stages.guidance_settings import (
    evaluate_guidance,
    guidance_apart,
    negative_prompts,
)
from onereward_jax.stages.reward_settings import reward_options, reward_settings
from onereward_jax.stages.rl_rows import announce_lacking, available_tasks
from onereward_jax.stages.rl_settings import (
    check_balance,
    check_references,
    check_surrogate,
    judge_options,
    rl_settings,
    task_probabilities,
)
from onereward_jax.tasks import NEGATIVE_PROMPTS, SAMPLING_PROBABILITIES, TASKS, Task


def changed(fields: dict, name: str = "flux_fill_dev") -> FrozenConfigDict:
    """A config of ours with some of its fields changed."""
    config: ConfigDict = get_config(name)
    config.update_from_flattened_dict(fields)
    return FrozenConfigDict(config)


def scales(config: FrozenConfigDict) -> list[float]:
    found = rl_settings(config)
    return [
        found.policy_true_cfg_scale,
        found.prediction_true_cfg_scale,
        found.reference_true_cfg_scale,
        evaluate_guidance(config).true_cfg_scale,
    ]


@pytest.mark.parametrize(("name", "scale"), [("flux_fill_dev", 4.0), ("mini", 2.0)])
def test_one_guidance_serves_training_and_use_unless_told_otherwise(name, scale):
    config = changed({}, name)
    assert scales(config) == [scale] * 4 and guidance_apart(config) == ""
    assert rl_settings(config).guidance_scale == evaluate_guidance(config).guidance_scale == 1.0
    config = changed({"guidance.true_cfg_scale": 3.0, "guidance.guidance_scale": 7.5}, name)
    assert scales(config) == [3.0] * 4 and guidance_apart(config) == ""
    assert rl_settings(config).guidance_scale == evaluate_guidance(config).guidance_scale == 7.5

    config = changed({"rl.policy_true_cfg_scale": 1.0, "rl.negative_prompt": "grey"}, name)
    assert scales(config) == [1.0, scale, scale, scale]
    line = guidance_apart(config)
    assert f"config.rl.policy_true_cfg_scale 1.0 not {scale}" in line and "\n" not in line
    assert "config.rl.negative_prompt 'grey' not 'nsfw'" in line and "reference" not in line


def test_all_negative_prompts_of_a_config_are_known():
    config = changed(
        {
            "candidates.negative_prompts": ("", "dull"),
            "rl.negative_prompt": "grey",
            "evaluate.negative_prompt": "dull",
        }
    )
    assert negative_prompts(config) == ("", "dull", "grey")
    assert negative_prompts(changed({}, "qwen2_5_vl_7b_reward")) == NEGATIVE_PROMPTS


def test_tasks_are_drawn_as_the_config_says():
    assert task_probabilities(changed({})) == SAMPLING_PROBABILITIES
    fields = {f"rl.task_probabilities.{task}": float(n) for n, task in enumerate(TASKS)}
    assert task_probabilities(changed(fields)) == {
        Task.EXTEND_WITH_PROMPT: 1 / 6,
        Task.EXTEND_WITHOUT_PROMPT: 2 / 6,
        Task.REMOVAL: 3 / 6,
    }


def test_tasks_that_the_data_lacks_are_left_out_and_said(capsys):
    fills = Many()
    fills.tasks = np.zeros_like(fills.tasks)
    probabilities = task_probabilities(changed({}))
    assert available_tasks(probabilities, fills) == {Task.FILL: 1.0}
    announce_lacking(probabilities, fills)
    said = capsys.readouterr().out
    assert "extend_with_prompt, extend_without_prompt, removal: left out" in said
    with pytest.raises(ValueError, match="config.rl.task_probabilities: .* no triplet of removal"):
        available_tasks({Task.REMOVAL: 1.0}, fills)


ALL_DIMENSIONS_OF_REMOVAL = {"rl.dimension_weights.removal_quality": 0.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rl.algorithm": "dynamc"}, "config.rl.algorithm is 'dynamc': neither 'frozen', 'dyn"),
        ({"rl.t2": 40}, "config.rl.t1 is 30 and t2 is 40: .* < num_steps, 40"),
        ({"rl.microbatches": 0}, "config.rl.microbatches is 0"),
        ({"rl.ema_decay": 1.5}, "config.rl.ema_decay is 1.5"),
        ({"rl.jitter.negative": 2.0}, "config.rl.jitter.negative is 2.0"),
        ({"rl.lora.rank": 4, "rl.lora.alpha": 0.0}, "config.rl.lora.alpha is 0.0"),
        ({"reward.lora.rank": 4, "reward.lora.alpha": 0.0}, "config.reward.lora.alpha is 0.0"),
        ({"rl.optimizer.moments": "int4"}, "config.rl.optimizer.moments is 'int4'"),
        (
            {"rl.optimizer.schedule": "cosine", "rl.optimizer.warmup_steps": 20, "rl.steps": 2},
            "config.rl.optimizer.warmup_steps is 20: fewer are expected for a cosine schedule that "
            "ends at step 2",
        ),
        ({"rl.balance": "median"}, "config.rl.balance is 'median': choose one of mean, worst, "),
        ({"rl.balance": "floors", "rl.floor": 0.0}, "config.rl.floor is 0.0: expected above 0"),
        (
            {"rl.algorithm": "nft", "rl.balance": "worst"},
            "config.rl.balance is 'worst', but the method config.rl.algorithm='nft' has no loss",
        ),
        (
            {"rl.algorithm": "dynamic", "rl.references": "bank"},
            'config.rl.references is "bank", but the reference of this algorithm is the moving',
        ),
        (
            {"rl.algorithm": "dpo", "rl.references": "bank"},
            "config.rl.references is 'bank', but the method config.rl.algorithm='dpo' compares wit",
        ),
        (
            {"rl.algorithm": "nft", "rl.references": "bank", "rl.compare": "group"},
            "config.rl.algorithm='nft' with config.rl.compare='group' compares with no picture of",
        ),
        (
            {"rl.surrogate": "sparse", "models.solver": "ab2"},
            "config.rl.surrogate is 'sparse', .* but config.models.solver is 'ab2': 'euler' expec",
        ),
        ({"rl.vocabulary": "yesno"}, "config.rl.vocabulary is 'yesno': choose one of full, yes_no"),
        ({"reward.vocabulary": ""}, "config.reward.vocabulary is '': choose one of full, yes_no"),
        ({"reward.optimizer.learning_rate": 0.0}, "config.reward.optimizer.learning_rate is 0.0"),
        (ALL_DIMENSIONS_OF_REMOVAL, "dimension_weights are 0 for all dimensions of object removal"),
        ({"rl.dimension_weights.structure": -1.0}, "dimension_weights.structure is -1.0"),
        ({f"rl.task_probabilities.{task}": 0.0 for task in TASKS}, "task_probabilities: all are 0"),
        ({"rl.task_probabilities.fill": -0.5}, "rl.task_probabilities.fill is -0.5: expected"),
    ],
)
def test_a_wrong_value_is_named_as_the_config_names_it(fields, message):
    config = changed(fields)
    with pytest.raises(ValueError, match=re.compile(message)) as found:
        for read in (rl_settings, reward_settings, judge_options, reward_options):
            read(config)
        task_probabilities(config)
        check_balance(config)
        check_surrogate(config)
        check_references(config)
    assert "\n" not in str(found.value)
