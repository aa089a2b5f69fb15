"""The mini world: the whole method on two CPU cores, with the models that come along.

Variants, as in `--config=configs/mini.py:smoke`:
  (none)  the run of launch/quickstart.sh
  smoke   a handful of samples and steps: every stage runs, nothing is learnt
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from onereward_jax.tasks import NEGATIVE_PROMPTS

# attention and MLPs of both streams and of the joined one
LORA_TARGETS = r"(single_)?transformer_blocks\.\d+\.(attn\..+|ff(_context)?\..+|proj_mlp|proj_out)"


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; raises ValueError for an unknown variant."""
    config = ConfigDict()
    config.seed = 0  # of everything that is drawn
    config.stages = (  # the chain, when --stage is not given
        "data",
        "embed",
        "candidates",
        "annotate",
        "reward",
        "rl",
        "evaluate",
        "export",
    )

    config.mesh = mesh = ConfigDict()
    mesh.data = -1  # devices over which only the batch is split; -1: all that are left
    mesh.fsdp = 1  # devices over which batch and weights are split
    mesh.tensor = 1  # devices over which heads and MLPs are split

    config.compilation_cache = "~/.cache/onereward_jax/compiled"  # of compiled steps; "": none

    config.logging = logging = ConfigDict()
    logging.tensorboard = True  # event files beside each metrics.jsonl
    logging.wandb = ""  # project of Weights & Biases (extra wandb); "": none
    logging.profile_steps = (0, 0)  # first and last step traced by jax.profiler; (0, 0): none

    config.models = models = ConfigDict()
    models.editor = "mini/models/editor"  # diffusers folder: path, in the package, or hub id
    models.transformer = ""  # folder of a transformer in place of the editor's own; "": none
    models.judge = "mini/models/judge"  # transformers folder, likewise
    models.paste_back = True  # keep the source's own pixels where the mask is 0
    models.dtype = "float32"  # of computation; "bfloat16" on TPU and GPU
    models.remat = "dots"  # computed again: "none", "dots", "attention", "offload", "full"

    config.data = data = ConfigDict()
    data.source = "mini"  # "mini": composed scenes; "folder": your images; "tfds": a ready set
    data.path = ""  # of the folder or the TFDS set; not used by "mini"
    data.image_size = 64  # height and width of a square picture in pixels
    data.aspect_ratios = (1.0,)  # width / height; each picture of a folder takes the nearest one
    data.small_pictures = "upscale"  # a folder's with fewer pixels: "upscale" or "refuse" (ours)
    data.train = ConfigDict()  # triplets to learn from, per task
    data.train.fill = 2000
    data.train.extend_with_prompt = 500
    data.train.extend_without_prompt = 500
    data.train.removal = 1000
    data.test = ConfigDict()  # triplets of photos never learnt from, per task
    data.test.fill = 200
    data.test.extend_with_prompt = 200
    data.test.extend_without_prompt = 200
    data.test.removal = 200

    config.guidance = guidance = ConfigDict()  # of training and evaluation, unless told there
    guidance.guidance_scale = 1.0  # the editor's guidance input; the paper's at inference: 1
    guidance.true_cfg_scale = (
        2.0  # true classifier-free guidance, 1: none; the paper's at inference: 4
    )
    guidance.negative_prompt = "nsfw"  # for true guidance; the paper's at inference

    config.embed = embed = ConfigDict()
    embed.max_length = 12  # T5 tokens per prompt, padding included
    embed.batch_size = 64  # prompts per call

    config.candidates = candidates = ConfigDict()
    candidates.count = 4  # N of the paper: candidates per triplet
    candidates.train = 1600  # triplets of the training split that get candidates
    candidates.test = 400  # of the test split, to measure the judge's accuracy
    candidates.tasks = "evenly"  # tasks "evenly" or "as_sampled", by rl.task_probabilities
    candidates.batch_size = 64  # images per call of the editor
    candidates.num_steps = (2, 4, 8, 16)  # sampling steps are drawn from these
    candidates.negative_prompts = NEGATIVE_PROMPTS  # one is drawn, the paper's; "": none, so that
    # true guidance leads away from the empty prompt
    candidates.guidance_scale = (1.0, 1.0)  # range of the embedded guidance
    candidates.true_cfg_scale = (1.0, 5.0)  # range of the true classifier-free guidance
    candidates.guided_by = "both"  # of these, "either" alone (the other at its least) or "both"
    candidates.disturbed = 0.5  # share of the triplets whose candidates get colour noise
    candidates.disturbance = (0.0, 0.5)  # range of its standard deviation, for values in [-1, 1]
    candidates.strength = (0.4, 1.0)  # range of the initial noise; 1: pure noise

    config.annotate = annotate = ConfigDict()
    annotate.by = "oracle"  # "oracle" (mini data only) or "people"
    annotate.path = ""  # of people's answers: file or folder; "": in questions/questions.jsonl
    annotate.enough = 1.0  # share of the questions answered before the run goes on (ours)
    annotate.noise_rate = 0.05  # how often the oracle names a pair the wrong way round
    annotate.margin = 0.1  # least difference of scores for a pair; below it: no preference

    config.reward = reward = ConfigDict()
    reward.steps = 700  # updates of the judge
    reward.batch_size = 16  # pairs per update, each in both orders
    reward.microbatches = 1  # micro-batches per update
    reward.optimizer = optimizer(4e-4, warmup_steps=50, schedule="cosine")
    reward.between = True  # learn that the candidates neither best nor worst lie between these
    reward.mirror = 0.5  # how often both pictures of a pair are mirrored (not for text alignment)
    reward.jitter = jitter(noise=0.2, shift=3, negative=0.5)
    reward.tasks = "evenly"  # draw tasks "evenly", or "as_found": all pairs equally often
    reward.query_template = ""  # file with the judge's questions; "": the package's, ours
    reward.suffix_length = 64  # tokens of a query's last words with a quoted prompt
    reward.unfit_prompts = "refuse"  # prompts that do not fit: "refuse" or "cut" them
    reward.vocabulary = "full"  # P("Yes") over the "full" vocabulary or over {"yes_no"}
    reward.evaluate_every = 350  # steps between accuracy tables
    reward.checkpoint_every = 200  # steps between checkpoints
    reward.log_every = 20  # steps between lines of the log
    reward.max_refused = 10  # NaN or Inf steps after which the run stops

    config.rl = rl = ConfigDict()
    rl.algorithm = "frozen"  # "frozen" reference (Algorithm 1) or "dynamic" (Algorithm 2)
    rl.steps = 200  # updates of the policy
    rl.batch_size = 8  # triplets per update
    rl.microbatches = 1  # micro-batches per update
    rl.optimizer = optimizer(6e-5, warmup_steps=20, schedule="cosine")
    rl.lora = lora = ConfigDict()
    lora.rank = 0  # of an adapter trained in place of the whole transformer; 0: no adapter
    lora.alpha = 16.0  # the adapter counts alpha / rank times
    lora.targets = LORA_TARGETS  # adapted linear layers: regular expression of their full names
    rl.reward = "judge"  # "judge", or a module or .py file with make(config, mesh) of your own
    rl.reward_upper_bound = 0.65  # lambda of Eq. 5: no gradient above this P("Yes")
    rl.dimension_weights = ConfigDict()  # of the mean over E_k; the paper's is plain: all alike
    rl.dimension_weights.structure = 1.0
    rl.dimension_weights.consistency = 1.0
    rl.dimension_weights.text_alignment = 1.0
    rl.dimension_weights.aesthetics = 1.0
    rl.dimension_weights.removal_quality = 1.0
    rl.vocabulary = "full"  # as in reward
    rl.judge_int8 = False  # keep the judge's linear layers at one byte per weight
    rl.ema_decay = 0.98  # tau: of the policy's average, the reference of Algorithm 2
    rl.num_steps = 8  # points of the sampling grid
    rl.t1 = 6  # first grid index at which the rollout may end in the differentiable step
    rl.t2 = 7  # last one
    # How the policy is guided while it learns is left open by the paper; as in use is our reading.
    rl.guidance_scale = placeholder(float)  # embedded, policy and reference; None: as in guidance
    rl.policy_true_cfg_scale = placeholder(float)  # true guidance of the policy's rollout; likewise
    rl.prediction_true_cfg_scale = placeholder(float)  # of its one differentiable forward; likewise
    rl.reference_true_cfg_scale = placeholder(float)  # of the reference; likewise
    rl.negative_prompt = placeholder(str)  # for true guidance; likewise
    rl.task_probabilities = ConfigDict()  # p_k, the paper's; in any unit, 0: never
    rl.task_probabilities.fill = 0.5
    rl.task_probabilities.extend_with_prompt = 0.125
    rl.task_probabilities.extend_without_prompt = 0.125
    rl.task_probabilities.removal = 0.25
    rl.task_per = "sample"  # draw the task per "sample" or per "iteration"
    rl.flow_matching_weight = 0.5  # of the pre-training loss, on triplets with a target; ours
    rl.jitter = jitter(noise=0.2, shift=3, negative=0.5)
    rl.checkpoint_every = 100  # steps between checkpoints
    rl.sample_every = 100  # steps between grids of sample images
    rl.log_every = 10  # steps between lines of the log
    rl.max_refused = 10  # NaN or Inf steps after which the run stops

    config.evaluate = evaluate = ConfigDict()
    evaluate.triplets = ConfigDict()  # held-out triplets compared, per task
    evaluate.triplets.fill = 200
    evaluate.triplets.extend_with_prompt = 200
    evaluate.triplets.extend_without_prompt = 200
    evaluate.triplets.removal = 200
    evaluate.batch_size = 64  # images per call of the editor
    evaluate.num_steps = 8  # sampling steps
    evaluate.guidance_scale = placeholder(float)  # embedded; None: as in guidance
    evaluate.true_cfg_scale = placeholder(float)  # true classifier-free guidance; likewise
    evaluate.negative_prompt = placeholder(str)  # for true guidance; likewise
    evaluate.same_margin = 0.03  # least difference of oracle scores for Good or Bad; else Same
    evaluate.judge_same_margin = 0.1  # the same for the judge's preference
    evaluate.judge = ""  # folder or hub id of a held-out judge, beside that of rl (ours); "": none
    evaluate.questions = 0  # to people, base or policy, per task (ours); 0: none
    evaluate.answers = ""  # theirs: file or folder; "": in questions-ab/questions.jsonl
    evaluate.weights = "ema"  # which weights of the trained editor: "policy" or "ema"
    evaluate.pictures = 8  # triplets shown in the report, per task

    config.export = export = ConfigDict()
    export.weights = "ema"  # which weights of the policy: "ema" or "policy"
    export.dtype = "float32"  # of the files
    export.editor = "pipeline"  # of the editor: the whole "pipeline" or its "transformer" alone
    export.shard_gb = 5.0  # size in GB beyond which weights go on in another file
    export.editor_card = card("", "apache-2.0")
    export.judge_card = card("", "apache-2.0")

    if variant == "smoke":
        smoke(config)
    elif variant:
        raise ValueError(f"configs/mini.py has no variant {variant!r}; there is: smoke")
    return config


def card(
    base_model: str, license: str, license_name: str = "", license_link: str = ""
) -> ConfigDict:
    """What the header of a model card says."""
    section = ConfigDict()
    section.base_model = base_model  # hub id of what the training started from; "" for none
    section.license = license  # as the hub spells it
    section.license_name = license_name  # of a license that is "other"
    section.license_link = license_link  # likewise
    return section


def optimizer(learning_rate: float, warmup_steps: int, schedule: str = "constant") -> ConfigDict:
    """AdamW and its schedule."""
    section = ConfigDict()
    section.learning_rate = learning_rate  # the peak
    section.schedule = schedule  # "constant" or "cosine", after the warm-up
    section.warmup_steps = warmup_steps  # of linear rise from 0
    section.final_fraction = 0.05  # end of "cosine", as a fraction of the peak
    section.b1 = 0.9  # Adam's
    section.b2 = 0.999  # Adam's
    section.eps = 1e-8  # Adam's
    section.weight_decay = 0.0  # decoupled, on kernels, embeddings and adapters
    section.clip_norm = 1.0  # largest global norm of the gradient
    section.moments = "float32"  # Adam's: "float32", "bfloat16" (the first), "int8" (both)
    return section


def jitter(noise: float = 0.0, shift: int = 0, negative: float = 0.0) -> ConfigDict:
    """What is done to the pictures of a pair before the judge looks at them."""
    section = ConfigDict()
    section.noise = noise  # most standard deviation of noise on both, for values in [-1, 1]
    section.shift = shift  # most pixels by which each is moved
    section.negative = negative  # how often brightness is turned over, where no prompt counts
    return section


def smoke(config: ConfigDict) -> None:
    """Make everything as small as it can be."""
    for counts in (config.data.train, config.data.test, config.evaluate.triplets):
        for task in counts:
            counts[task] = 8
    config.candidates.update(train=16, test=16, num_steps=(2, 4))
    config.reward.update(steps=4, evaluate_every=2, checkpoint_every=2, log_every=1)
    config.rl.update(steps=4, num_steps=4, t1=2, t2=3, checkpoint_every=2, sample_every=2)
    config.rl.log_every = 1
    for stage in (config.reward, config.rl):
        stage.optimizer.warmup_steps = 1
    config.evaluate.update(num_steps=4, pictures=2)
