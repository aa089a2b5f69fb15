"""The run of benchmarks/kills.py: every stage, its real models, as little work as there can be.

Variants, as in `--config=benchmarks/kills_config.py:people`:
  pretrain  the training of the mini models alone; needs extra `mini`
  oracle  scenes of the mini world, whose models are trained first (`pretrain`); needs extra `mini`
  people  a folder of pictures, judged by people; runs on several processes
"""

import pathlib
import runpy

from ml_collections import ConfigDict

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def get_config(variant: str) -> ConfigDict:
    """The experiment."""
    if variant == "pretrain":
        config = loaded("make_mini", "smoke")
        config.pretrain.checkpoint_every = 1
        return config
    if variant == "people":
        config = loaded("rehearsal")
        config.data.aspect_ratios = (1.0,)  # one compiled step of each kind
    else:
        config = loaded("mini", "smoke")
        config.pretrain = loaded("make_mini", "smoke").pretrain
        config.pretrain.checkpoint_every = 1
        config.stages = ("data", "pretrain", *config.stages[1:])
        config.candidates.update(count=3, batch_size=8)
        config.embed.batch_size = 8
        config.evaluate.batch_size = 8
        for counts in (config.data.train, config.data.test, config.evaluate.triplets):
            for task in counts:
                counts[task] = 4
    config.candidates.update(train=8, test=8, num_steps=(2,))
    config.reward.update(checkpoint_every=1, steps=6, evaluate_every=3)
    config.rl.update(checkpoint_every=1, steps=6, sample_every=6)
    config.rl.batch_size = config.reward.batch_size = 4
    config.evaluate.update(num_steps=2, pictures=1)
    return config


def loaded(name: str, *variant: str) -> ConfigDict:
    """A file of configs/."""
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](*variant)
