"""The mini world: the whole method on two CPU cores, with the package's mini models.

    launch/quickstart.sh, or
    python -m onereward_jax.main --config=configs/mini.py --workdir=runs/mini

Variants, as in `--config=configs/mini.py:smoke`:
  (none)  the run of launch/quickstart.sh
  smoke   a few samples and steps: every stage runs, nothing is learned
  folder  the mini models on your own images (--config.data.path), judged by people
  smoke,folder  both

Cost: 28 minutes on two cores shared with other work; smoke about a minute.
Result: judge right in 85 / 68 / 88 % of held-out pairs (fill / extend / removal); Good - Bad by
the oracle +39.5 / +20.5 / +8 / +40 % (fill / extend with / without prompt / removal), one seed.
"""

from ml_collections import ConfigDict

from configs.defaults import experiment, optimizer

MINI = "onereward_jax.mini"
"""The plug-ins of the mini world; see its docstring."""


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; raises ValueError for an unknown variant."""
    config = experiment()
    config.models.update(
        editor="mini/models/editor",
        judge="mini/models/judge",
        paste_back=True,
        dtype="float32",
        remat="dots",
    )
    config.data.update(source=f"{MINI}.scene_source", image_size=64)
    config.annotate.by = f"{MINI}.oracle_annotator"
    config.mini = mini = ConfigDict()
    mini.train = per_task(2000, 500, 500, 1000)  # training scenes
    mini.test = per_task(200, 200, 200, 200)  # test scenes, of held-out photos
    mini.noise_rate = 0.05  # probability that the annotator swaps winner and loser
    mini.margin = 0.07  # minimum score difference for a preference
    mini.same_margin = 0.03  # minimum score difference of the oracle for Good or Bad; else Same
    mini.disturbed = 0.2  # fraction of triplets whose candidates get colour noise
    mini.disturbance = (0.0, 0.5)  # range of its standard deviation, for values in [-1, 1]

    config.guidance.true_cfg_scale = 2.0
    config.embed.max_length = 12
    config.candidates.update(
        train=1600,
        tasks="evenly",
        num_steps=(4, 8, 16),
        guidance_scale=(1.0, 1.0),
        true_cfg_scale=(1.5, 3.0),
        guided_by="both",
        transform=f"{MINI}.colour_noise",
        strength=(0.7, 1.0),
    )

    reward = config.reward
    reward.update(steps=700, suffix_length=64, evaluate_every=350, checkpoint_every=200)
    reward.update(log_every=20, between=True, mirror=0.5, tasks="evenly")
    reward.optimizer = optimizer(4e-4, warmup_steps=50, schedule="cosine", final_fraction=0.05)

    rl = config.rl
    rl.update(steps=200, num_steps=8, t1=6, t2=7, checkpoint_every=100, sample_every=100)
    rl.update(ema_decay=0.98, flow_matching_weight=1.0)
    rl.task_probabilities.update(per_task(1, 1, 1, 1))
    rl.dpo_beta = 100.0  # at 2000, the loss of these models explodes
    rl.optimizer = optimizer(6e-5, warmup_steps=20, schedule="cosine", final_fraction=0.05)
    for stage in (reward, rl):
        stage.jitter.update(noise=0.1, shift=2, negative=0.5)

    config.evaluate.update(num_steps=8, questions=0, oracle=f"{MINI}.oracle")
    config.evaluate.triplets.update(per_task(200, 200, 200, 200))
    config.export.dtype = "float32"

    variants = set(variant.split(",")) - {""}
    if unknown := variants - {"smoke", "folder"}:
        raise ValueError(
            f"configs/mini.py has no variant {unknown.pop()!r}: smoke, folder, or both"
        )
    if "smoke" in variants:
        smoke(config)
    if "folder" in variants:
        folder(config)
    return config


def folder(config: ConfigDict) -> None:
    """Removes everything that depends on the scenes of the mini world."""
    del config.mini
    config.data.source = "folder"
    config.candidates.transform = ""
    config.annotate.by = "people"
    config.rl.flow_matching_weight = 0.0  # photographs have no target
    config.rl.reward_upper_bound = 0.65  # without targets the judge is soon cheated
    config.evaluate.oracle = ""


def per_task(
    fill: int, extend_with_prompt: int, extend_without_prompt: int, removal: int
) -> ConfigDict:
    """A number for each task."""
    return ConfigDict(locals())


def smoke(config: ConfigDict) -> None:
    """Makes everything as small as possible."""
    for counts in (config.mini.train, config.mini.test, config.evaluate.triplets):
        for task in counts:
            counts[task] = 8
    config.candidates.update(train=16, test=16, num_steps=(2, 4))
    config.reward.update(steps=4, evaluate_every=2, checkpoint_every=2, log_every=1)
    config.rl.update(steps=4, num_steps=4, t1=2, t2=3, checkpoint_every=2, sample_every=2)
    config.rl.log_every = 1
    for stage in (config.reward, config.rl):
        stage.optimizer.warmup_steps = 1
    config.evaluate.update(num_steps=4, pictures=2)
