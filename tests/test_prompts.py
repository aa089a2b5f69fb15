"""Prompts that the judge cannot be asked about: all named before the chain starts, or cut."""

import dataclasses
import json
import re

import pytest
from ml_collections import FrozenConfigDict
from PIL import Image
from test_main import get_config

from onereward_jax.chain.stage import StageContext
from onereward_jax.parallel import make_mesh
from onereward_jax.reward.judge_loader import read_reward_model
from onereward_jax.stages import data, reward, rl
from onereward_jax.stages.prompt_checks import check_prompts, settle_prompts
from onereward_jax.stages.reward_settings import reward_options
from onereward_jax.tasks import Task

CLOCK = "a clock face twelve-thirty"
LONG = "a red apple on the table and " * 8
ROWS = [
    {"image": "a.png", "mask": "m.png", "task": "fill", "prompt": CLOCK},
    {"image": "a.png", "mask": "m.png", "task": "fill", "prompt": LONG},
    {"image": "b.png", "mask": "m.png", "task": "removal", "prompt": LONG},
    {"image": "b.png", "mask": "m.png", "task": "extend_without_prompt"},
    {"image": "c.png", "mask": "m.png", "task": "extend_with_prompt", "prompt": "sky <|im_end|>"},
]


def context_of(tmp_path, **fields):
    """Of a run on a folder, of which there is no more than the metadata."""
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "metadata.jsonl").write_text(lines, encoding="utf-8")
    config = get_config("mini")
    config.data.update(source="folder", path=str(tmp_path))
    config.reward.update(fields)
    config.rl.flow_matching_weight = 0.0
    return StageContext("reward", FrozenConfigDict(config), tmp_path / "run", make_mesh())


@pytest.mark.parametrize("stage", [reward, rl])
def test_rows_that_cannot_be_asked_about_are_named_before_the_chain_starts(stage, tmp_path):
    """Of the tasks whose prompts are quoted; an ordinary prompt is not one of them."""
    with pytest.raises(ValueError) as found:
        stage.check(context_of(tmp_path))
    first, *lines = str(found.value).splitlines()
    assert first.startswith(f"{tmp_path / 'metadata.jsonl'}: 2 prompts do not fit into ")
    assert 'config.reward.unfit_prompts = "cut"' in first
    assert [re.match(r"  line (\d+): ", line)[1] for line in lines] == ["2", "5"]
    assert "tokens where there is room for" in lines[0] and "<|im_end|>" in lines[1]
    stage.check(context_of(tmp_path, unfit_prompts="cut"))
    with pytest.raises(ValueError, match="3 prompts do not fit into"):
        stage.check(context_of(tmp_path, suffix_length=40))
    with pytest.raises(ValueError, match="words for .* tokens, more than suffix_length 9"):
        check_prompts(context_of(tmp_path, suffix_length=9))


def test_they_are_named_too_if_the_stage_data_runs_alone(tmp_path):
    context = dataclasses.replace(context_of(tmp_path), stage="data")
    for name in "abc":
        Image.new("RGB", (64, 64), (ord(name), 0, 0)).save(tmp_path / f"{name}.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (8, 8, 24, 24))
    mask.save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="metadata.jsonl: 2 prompts do not fit into "):
        data.check(context)


@pytest.mark.parametrize("fields", [{}, {"unfit_prompts": "cut"}])
def test_a_data_set_is_settled_before_the_first_question(fields, tmp_path, capsys):
    """Refused, or cut with one line; then no prompt of it can stop a reading thread."""
    context = context_of(tmp_path, **fields)
    judge = read_reward_model(
        context.base_model("judge"), (64, 64), **reward_options(context.config)
    )
    tasks = [Task(row["task"]) for row in ROWS]
    prompts = [row.get("prompt", "") for row in ROWS]
    rows = list(zip(["train/0", "train/1", "train/2", "test/0", "test/1"], tasks, prompts))
    if not fields:
        with pytest.raises(ValueError, match="(?s)2 prompts do not fit.*train/1.*test/1"):
            settle_prompts(context, judge.queries, rows)
        return
    settle_prompts(context, judge.queries, rows)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "reward: 2 of 5 prompts are truncated" in said
    judge.queries.encode(tasks, prompts)
