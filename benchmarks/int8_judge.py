"""Compares a judge in int8 with the same judge in float32, on a run's held-out pairs.

    python benchmarks/int8_judge.py runs/mini [--config=configs/mini.py]

Prints the bytes of both, the mean and the largest change of P("Yes") over all pairs in both orders,
how often the preference changes, and the accuracy per task.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from onereward_jax.annotation.labelled_pairs import read_pairs
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.config_files import load_config
from onereward_jax.parallel import gather, make_mesh, replicate
from onereward_jax.reward.judge_loader import load_reward_params, read_reward_model
from onereward_jax.stages.collect_pairs import PAIRS, picture_folders
from onereward_jax.stages.edits_of_pairs import edits_of_pairs
from onereward_jax.stages.pair_source import PairSource
from onereward_jax.stages.rl_settings import judge_options
from onereward_jax.training.reward_step import RewardConfig, make_answers

BATCH = 16

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("workdir", type=Path, help="of a run whose stage reward is complete")
parser.add_argument("--config", default="configs/mini.py", help="of that run")
ARGUMENTS = parser.parse_args()


def main() -> None:
    """Asks both judges about every pair."""
    config = FrozenConfigDict(load_config(ARGUMENTS.config))
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    context = StageContext("reward", config, ARGUMENTS.workdir, mesh)
    folder, size = context.folder / "judge", (config.data.image_size,) * 2
    judge = read_reward_model(folder, size, **judge_options(config))
    held_out = [pair for pair in read_pairs(context.folder / PAIRS) if pair.split == "test"]
    pairs = PairSource(
        held_out,
        picture_folders(context),
        {size: judge.queries},
        edits_of_pairs(context, held_out),
    )
    answers = make_answers(judge.scorer, RewardConfig(), mesh)
    found = {}
    for int8 in (False, True):
        params = load_reward_params(folder, judge.scorer, mesh, int8=int8)
        count = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        print(f"{'int8' if int8 else 'float'}: {count / 1e6:.2f} MB of weights")
        found[int8] = probabilities(answers, params, pairs, mesh)
    change = np.abs(found[True] - found[False])
    print(f"P(Yes) of {len(pairs)} pairs in both orders changes by {change.mean():.4f} on average,")
    print(f"{np.quantile(change, 0.99):.4f} in the worst hundredth, {change.max():.4f} at most")
    prefers = {int8: both[:, 0] > both[:, 1] for int8, both in found.items()}
    print(f"the preferred picture changes in {np.mean(prefers[True] != prefers[False]):.2%}")
    for int8, right in prefers.items():
        print(f"{'int8' if int8 else 'float'}: {np.mean(right):.2%} agree with the annotator")


def probabilities(answers, params, pairs: PairSource, mesh) -> np.ndarray:
    """P("Yes") of every pair, the winner first and the loser first."""
    rows = []
    for start in range(0, len(pairs), BATCH):
        chosen = [min(start + offset, len(pairs) - 1) for offset in range(BATCH)]
        elements = [pairs[index] for index in chosen]
        batch = {name: np.stack([one[name] for one in elements]) for name in elements[0]}
        rows.append(np.exp(gather(answers(params, replicate(batch, mesh))).yes))
    return np.concatenate(rows)[: len(pairs)]


if __name__ == "__main__":
    main()
