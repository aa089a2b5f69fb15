"""The run of benchmarks/kills.py: every stage with real models and minimal work.

Variants, as in `--config=benchmarks/kills_config.py:people`:
  pretrain  the training of the mini models alone; needs extra `mini`
  oracle  scenes of the mini world, whose models are trained first (`pretrain`); needs extra `mini`
  people  a folder of pictures, judged by people; runs on several processes
"""

from ml_collections import ConfigDict

from configs import make_mini, mini, rehearsal


def get_config(variant: str) -> ConfigDict:
    """The experiment."""
    if variant == "pretrain":
        config = make_mini.get_config("smoke")
        config.pretrain.checkpoint_every = 1
        return config
    if variant == "people":
        config = rehearsal.get_config()
        config.data.aspect_ratios = (1.0,)  # one compiled step of each kind
    else:
        config = mini.get_config("smoke")
        config.pretrain = make_mini.get_config("smoke").pretrain
        config.pretrain.checkpoint_every = 1
        config.stages = ("data", "onereward_jax.mini.pretrain", *config.stages[1:])
        config.models.update(editor="stage:pretrain/editor", judge="stage:pretrain/judge")
        config.candidates.update(count=3, batch_size=8)
        config.embed.batch_size = 8
        config.evaluate.batch_size = 8
        for counts in (config.mini.train, config.mini.test, config.evaluate.triplets):
            for task in counts:
                counts[task] = 4
    config.candidates.update(train=8, test=8, num_steps=(2,))
    config.reward.update(checkpoint_every=1, steps=6, evaluate_every=3)
    config.rl.update(checkpoint_every=1, steps=6, sample_every=6)
    config.rl.batch_size = config.reward.batch_size = 4
    config.evaluate.update(num_steps=2, pictures=1)
    return config
