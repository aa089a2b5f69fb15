"""Trains the package's mini models from scratch (launch/make_mini.sh).

Variants, as in `--config=configs/make_mini.py:smoke`:
  (none)  the recipe of the shipped models
  smoke   a few steps: everything runs, nothing is learned

    launch/make_mini.sh

Cost: about 3 h on two cores.
Result: the models of onereward_jax/mini/models (the second phase of theirs had seed 11).
"""

from ml_collections import ConfigDict

from configs.defaults import experiment, jitter


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; raises ValueError for an unknown variant."""
    shared = experiment()
    config = ConfigDict(
        {name: shared[name] for name in ("seed", "mesh", "compilation_cache", "logging")}
    )
    config.stages = ("onereward_jax.mini.pretrain",)

    config.pretrain = pretrain = ConfigDict()
    pretrain.image_size = 64  # height and width in pixels
    pretrain.checkpoint_every = 500  # steps between checkpoints
    pretrain.log_every = 50  # steps between log entries

    pretrain.vae = training(steps=5000, batch_size=8, learning_rate=1.5e-3)
    pretrain.vae.ema_decay = 0.998  # of the exported weights
    pretrain.vae.kl_weight = 1e-6  # of the KL term; the absolute error has weight 1
    pretrain.vae.squared_weight = 0.5  # of the squared error

    pretrain.editor = training(steps=16000, batch_size=32, learning_rate=1.2e-3)
    pretrain.editor.ema_decay = 0.998  # of the exported weights
    pretrain.editor.scenes = 24000  # number of different scenes
    pretrain.editor.shares = ConfigDict()  # task distribution
    pretrain.editor.shares.fill = 0.8
    pretrain.editor.shares.extend_with_prompt = 0.09
    pretrain.editor.shares.extend_without_prompt = 0.08
    pretrain.editor.shares.removal = 0.03  # few: to be mediocre at removal, like FLUX Fill
    pretrain.editor.faint = 0.6  # fraction of transparent fills: leaves room for RL to improve
    pretrain.editor.opacity = (0.3, 1.0)  # range of their opacity
    pretrain.editor.drop_prompt = 0.1  # probability of a negative prompt instead, for CFG
    pretrain.editor.flaws = 0.0  # share of fills and extensions with a flaw in the mask

    # Second phase: more extensions, and flaws that leave room for RL to improve.
    pretrain.editor_flawed = ConfigDict(pretrain.editor.to_dict())
    pretrain.editor_flawed.update(steps=3000, learning_rate=8e-4, warmup_steps=100)
    pretrain.editor_flawed.update(scenes=16000, flaws=0.75)
    pretrain.editor_flawed.shares.update(
        fill=0.5, extend_with_prompt=0.24, extend_without_prompt=0.23
    )

    pretrain.judge = training(steps=5000, batch_size=16, learning_rate=1e-3)
    pretrain.judge.pairs = 16000  # number of different pairs of damaged images
    pretrain.judge.words_weight = 0.0  # of the language-modelling loss on the question's tokens
    pretrain.judge.jitter = jitter()  # none: start with what is easy to see

    pretrain.judge_refined = training(steps=4000, batch_size=16, learning_rate=5e-4)
    pretrain.judge_refined.pairs = 32000  # half of them reconstructed by the VAE
    pretrain.judge_refined.words_weight = 3.0  # as above: teaches what the prompt's words look like
    pretrain.judge_refined.jitter = jitter(noise=0.2, shift=3, negative=0.5)  # as RL needs it
    if variant == "smoke":
        smoke(pretrain)
    elif variant:
        raise ValueError(f"configs/make_mini.py has no variant {variant!r}; there is: smoke")
    return config


def training(steps: int, batch_size: int, learning_rate: float) -> ConfigDict:
    """Training settings of one model."""
    section = ConfigDict()
    section.steps = steps  # updates
    section.batch_size = batch_size  # examples per update
    section.learning_rate = learning_rate  # peak of the cosine schedule
    section.warmup_steps = 200  # linear warm-up from 0
    section.final_fraction = 0.02  # end of the cosine, as a fraction of the peak
    section.weight_decay = 0.01  # decoupled, on kernels and embeddings
    section.clip_norm = 1.0  # clipping threshold of the global gradient norm
    return section


def smoke(pretrain: ConfigDict) -> None:
    """Makes everything as small as possible."""
    pretrain.checkpoint_every = 2
    pretrain.log_every = 1
    editors = pretrain.editor, pretrain.editor_flawed
    for part in (pretrain.vae, pretrain.judge, pretrain.judge_refined, *editors):
        part.update(steps=4, batch_size=8, warmup_steps=1)
    for part in editors:
        part.scenes = 64
    pretrain.judge.pairs = pretrain.judge_refined.pairs = 64
