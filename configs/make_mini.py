"""Training the mini models that come with the package, from nothing (launch/make_mini.sh).

Variants, as in `--config=configs/make_mini.py:smoke`:
  (none)  the recipe of the shipped models
  smoke   a handful of steps: everything runs, nothing is learnt

    launch/make_mini.sh

Cost: about 2 h 45 on two cores.
Result: the models of onereward_jax/mini/models.
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
    pretrain.log_every = 50  # steps between lines of the log

    pretrain.vae = training(steps=5000, batch_size=8, learning_rate=1.5e-3)
    pretrain.vae.ema_decay = 0.998  # of the average that is kept
    pretrain.vae.kl_weight = 1e-6  # beside the absolute error of the reconstruction
    pretrain.vae.squared_weight = 0.5  # of the squared error, likewise

    pretrain.editor = training(steps=16000, batch_size=32, learning_rate=1.2e-3)
    pretrain.editor.ema_decay = 0.998  # of the average that is kept
    pretrain.editor.scenes = 24000  # different scenes
    pretrain.editor.shares = ConfigDict()  # of the tasks
    pretrain.editor.shares.fill = 0.8
    pretrain.editor.shares.extend_with_prompt = 0.09
    pretrain.editor.shares.extend_without_prompt = 0.08
    pretrain.editor.shares.removal = 0.03  # few: to be mediocre at removal, as FLUX Fill is
    pretrain.editor.faint = 0.6  # share of fills drawn see-through: better ones can then be taught
    pretrain.editor.opacity = (0.3, 1.0)  # range of their opacity
    pretrain.editor.drop_prompt = 0.1  # how often a negative prompt takes its place, for guidance

    pretrain.judge = training(steps=5000, batch_size=16, learning_rate=1e-3)
    pretrain.judge.pairs = 16000  # different pairs of damaged pictures
    pretrain.judge.words_weight = 0.0  # of foretelling a question's words from the pictures
    pretrain.judge.jitter = jitter()  # none: what is clear to see is learnt first

    pretrain.judge_refined = training(steps=4000, batch_size=16, learning_rate=5e-4)
    pretrain.judge_refined.pairs = 32000  # half of them as the autoencoder gives them back
    pretrain.judge_refined.words_weight = 3.0  # as above: what a prompt names is learnt this way
    pretrain.judge_refined.jitter = jitter(noise=0.2, shift=3, negative=0.5)  # as in mini.py
    if variant == "smoke":
        smoke(pretrain)
    elif variant:
        raise ValueError(f"configs/make_mini.py has no variant {variant!r}; there is: smoke")
    return config


def training(steps: int, batch_size: int, learning_rate: float) -> ConfigDict:
    """How long and how fast one model is trained."""
    section = ConfigDict()
    section.steps = steps  # updates
    section.batch_size = batch_size  # examples per update
    section.learning_rate = learning_rate  # the peak of a cosine
    section.warmup_steps = 200  # of linear rise from 0
    section.final_fraction = 0.02  # end of the cosine, as a fraction of the peak
    section.weight_decay = 0.01  # decoupled, on kernels and embeddings
    section.clip_norm = 1.0  # largest global norm of the gradient
    return section


def smoke(pretrain: ConfigDict) -> None:
    """Make everything as small as it can be."""
    pretrain.checkpoint_every = 2
    pretrain.log_every = 1
    for part in (pretrain.vae, pretrain.judge, pretrain.judge_refined, pretrain.editor):
        part.update(steps=4, batch_size=8, warmup_steps=1)
    pretrain.editor.scenes = 64
    pretrain.judge.pairs = pretrain.judge_refined.pairs = 64
