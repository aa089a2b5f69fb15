"""Every field of an experiment, with the paper's value where the paper states one.

An experiment is a file of this folder that calls `experiment` and changes what it is about.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from onereward_jax.tasks import NEGATIVE_PROMPTS

# attention and MLPs of both streams and of the joined one
LORA_TARGETS = r"(single_)?transformer_blocks\.\d+\.(attn\..+|ff(_context)?\..+|proj_mlp|proj_out)"


def experiment() -> ConfigDict:
    """The paper's setting; which models, data and devices is left to the experiment."""
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
    models.editor = (
        ""  # diffusers folder: path, in the package, hub id, or "stage:pretrain/editor",
    )
    # which an earlier stage of the run makes
    models.transformer = ""  # folder of a transformer in place of the editor's own; "": none
    models.judge = ""  # transformers folder, likewise
    models.paste_back = False  # keep the source's own pixels where the mask is 0
    models.dtype = "bfloat16"  # of computation: "float32", "bfloat16"
    models.remat = "full"  # computed again: "none", "dots", "attention", "offload", "full"

    config.data = data = ConfigDict()
    data.source = "folder"  # "folder": your images; "tfds": a ready set; or a plug-in of your own
    data.path = ""  # of the folder or the TFDS set
    data.image_size = 1024  # height and width of a square picture in pixels
    data.aspect_ratios = (1.0,)  # width / height; each picture of a folder takes the nearest one
    data.small_pictures = "upscale"  # a folder's with fewer pixels: "upscale" or "refuse" (ours)

    config.guidance = guidance = ConfigDict()  # of training and evaluation, unless told there
    guidance.guidance_scale = 1.0  # the editor's guidance input; the paper's at inference: 1
    guidance.true_cfg_scale = 4.0  # classifier-free; 1: none; the paper's at inference: 4
    guidance.negative_prompt = "nsfw"  # for true guidance; the paper's at inference

    config.embed = embed = ConfigDict()
    embed.max_length = 512  # T5 tokens per prompt, padding included
    embed.batch_size = 64  # prompts per call

    config.candidates = candidates = ConfigDict()
    candidates.count = 4  # N of the paper: candidates per triplet
    candidates.train = 20000  # triplets of the training split that get candidates
    candidates.test = 400  # of the test split, to measure the judge's accuracy
    candidates.tasks = "as_sampled"  # tasks "evenly" or "as_sampled", by rl.task_probabilities
    candidates.batch_size = 64  # images per call of the editor
    candidates.num_steps = (10, 20, 30, 50)  # sampling steps are drawn from these
    candidates.negative_prompts = NEGATIVE_PROMPTS  # one is drawn, the paper's; "": none, so that
    # true guidance leads away from the empty prompt
    candidates.guidance_scale = (1.0, 30.0)  # range of the embedded guidance
    candidates.true_cfg_scale = (1.0, 6.0)  # range of the true classifier-free guidance
    candidates.guided_by = "either"  # of these, "either" alone (the other at its least) or "both"
    candidates.transform = ""  # plug-in that changes finished pictures; "": none
    candidates.strength = (0.6, 1.0)  # range of the initial noise; 1: pure noise

    config.annotate = annotate = ConfigDict()
    annotate.by = "people"  # or a plug-in of your own
    annotate.path = ""  # of people's answers: file or folder; "": in questions/questions.jsonl
    annotate.enough = 1.0  # share of the questions answered before the run goes on (ours)

    config.reward = reward = ConfigDict()
    reward.steps = 5000  # updates of the judge
    reward.batch_size = 16  # pairs per update, each in both orders
    reward.microbatches = 1  # parts of the batch, one after the other: less memory
    reward.optimizer = optimizer(1e-6, warmup_steps=100)
    reward.jitter = jitter()
    reward.between = False  # learn that the candidates neither best nor worst lie between these
    reward.mirror = 0.0  # how often both pictures of a pair are mirrored (not for text alignment)
    reward.tasks = "as_found"  # draw tasks "evenly", or "as_found": all pairs equally often
    reward.query_template = ""  # file with the judge's questions; "": the package's, ours
    reward.suffix_length = 96  # tokens of a query's last words with a quoted prompt
    reward.unfit_prompts = "refuse"  # prompts that do not fit: "refuse" or "cut" them
    reward.vocabulary = "full"  # P("Yes") over the "full" vocabulary or over {"yes_no"}
    reward.evaluate_every = 500  # steps between accuracy tables
    reward.checkpoint_every = 500  # steps between checkpoints
    reward.log_every = 10  # steps between lines of the log
    reward.max_refused = 10  # NaN or Inf steps after which the run stops

    config.rl = rl = ConfigDict()
    rl.algorithm = "frozen"  # "frozen" reference (Algorithm 1) or "dynamic" (Algorithm 2)
    rl.steps = 8000  # updates of the policy
    rl.batch_size = 8  # triplets per update; a multiple of mesh data * fsdp
    rl.microbatches = 1  # parts of the batch, one after the other: less memory
    rl.optimizer = optimizer(1e-5, warmup_steps=100)
    rl.lora = lora = ConfigDict()
    lora.rank = 0  # of an adapter trained in place of the whole transformer; 0: no adapter
    lora.alpha = 16.0  # the adapter counts alpha / rank times
    lora.targets = LORA_TARGETS  # adapted linear layers: regular expression of their full names
    rl.reward = (
        "judge"  # "judge", or a module or .py file with make_reward(config, mesh) of your own
    )
    rl.reward_upper_bound = 0.9  # lambda of Eq. 5: no gradient above this P("Yes")
    rl.dimension_weights = ConfigDict()  # of the mean over E_k; the paper's is plain: all alike
    rl.dimension_weights.structure = 1.0
    rl.dimension_weights.consistency = 1.0
    rl.dimension_weights.text_alignment = 1.0
    rl.dimension_weights.aesthetics = 1.0
    rl.dimension_weights.removal_quality = 1.0
    rl.vocabulary = "full"  # as in reward
    rl.judge_int8 = False  # keep the judge's linear layers at one byte per weight
    rl.ema_decay = 0.999  # tau: of the policy's average, the reference of Algorithm 2
    rl.num_steps = 40  # points of the sampling grid
    rl.t1 = 30  # first grid index at which the rollout may end in the differentiable step
    rl.t2 = 39  # last one
    # How the policy is guided while it learns is left open by the paper; as in use is our reading.
    # True guidance of the policy doubles its forwards, and the memory of the differentiable one.
    # Without it, at half of that: policy_true_cfg_scale=1, prediction_true_cfg_scale=1, and the
    # same for evaluate.true_cfg_scale, since the policy then learns to look right without.
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
    rl.flow_matching_weight = 0.0  # of the pre-training loss, on triplets with a target; ours
    rl.jitter = jitter()
    rl.checkpoint_every = 250  # steps between checkpoints
    rl.sample_every = 250  # steps between grids of sample images
    rl.log_every = 10  # steps between lines of the log
    rl.max_refused = 10  # NaN or Inf steps after which the run stops

    config.evaluate = evaluate = ConfigDict()
    evaluate.triplets = ConfigDict()  # held-out triplets compared, per task
    evaluate.triplets.fill = 130
    evaluate.triplets.extend_with_prompt = 100
    evaluate.triplets.extend_without_prompt = 100
    evaluate.triplets.removal = 100
    evaluate.batch_size = 64  # images per call of the editor
    evaluate.num_steps = 50  # sampling steps
    evaluate.guidance_scale = placeholder(float)  # embedded; None: as in guidance
    evaluate.true_cfg_scale = placeholder(float)  # true classifier-free guidance; likewise
    evaluate.negative_prompt = placeholder(str)  # for true guidance; likewise
    evaluate.oracle = ""  # plug-in that knows the truth of a triplet, to compare by; "": none
    evaluate.judge_same_margin = 0.1  # least lead in the judge's preference for Good or Bad
    evaluate.judge = ""  # folder or hub id of a held-out judge, beside that of rl (ours); "": none
    evaluate.questions = 130  # to people, base or policy, per task (ours); 0: none
    evaluate.answers = ""  # theirs: file or folder; "": in questions-ab/questions.jsonl
    evaluate.weights = "ema"  # which weights of the trained editor: "policy" or "ema"
    evaluate.pictures = 8  # triplets shown in the report, per task

    config.export = export = ConfigDict()
    export.weights = "ema"  # which weights of the policy: "ema" or "policy"
    export.dtype = "bfloat16"  # of the files
    export.editor = "pipeline"  # of the editor: the whole "pipeline" or its "transformer" alone
    export.shard_gb = 5.0  # size in GB beyond which weights go on in another file
    export.editor_card = card("", "apache-2.0")
    export.judge_card = card("", "apache-2.0")
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


def optimizer(
    learning_rate: float, warmup_steps: int, schedule: str = "constant", final_fraction: float = 0.0
) -> ConfigDict:
    """AdamW and its schedule."""
    section = ConfigDict()
    section.learning_rate = learning_rate  # the peak
    section.schedule = schedule  # "constant" or "cosine", after the warm-up
    section.warmup_steps = warmup_steps  # of linear rise from 0
    section.final_fraction = final_fraction  # end of "cosine", as a fraction of the peak
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
