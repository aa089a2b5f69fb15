"""Every field of an experiment, with the paper's value where the paper states one.

An experiment is a file of this folder that calls `experiment` and overrides fields.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from onereward_jax.tasks import NEGATIVE_PROMPTS, OWN

# attention and MLP layers of the double-stream and single-stream blocks
EDITOR_LAYERS = r"(single_)?transformer_blocks\.\d+\.(attn\..+|ff(_context)?\..+|proj_mlp|proj_out)"

# attention and MLP layers of the language model
JUDGE_LAYERS = r"model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"


def experiment() -> ConfigDict:
    """The paper's setting; models, data and devices are set by the experiment."""
    config = ConfigDict()
    config.seed = 0  # of all random streams; up to 64 bits
    config.stages = (  # stages to run without --stage
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
    mesh.data = -1  # data parallelism: shards the batch; -1: inferred from the device count
    mesh.fsdp = 1  # FSDP: shards batch and weights
    mesh.tensor = 1  # tensor parallelism: shards heads and MLPs
    mesh.context = 1  # sequence parallelism: shards FLUX's tokens, and weights as FSDP does

    config.compilation_cache = "~/.cache/onereward_jax/compiled"  # of jax; "": none

    config.logging = logging = ConfigDict()
    logging.tensorboard = True  # event files next to each metrics.jsonl
    logging.wandb = ""  # Weights & Biases project (extra wandb); "": none
    logging.profile_steps = (0, 0)  # first and last step to profile (jax.profiler); (0, 0): none

    config.models = models = ConfigDict()
    # A path, a folder of the package, a hub id, or "stage:pretrain/editor" (output of a stage):
    models.editor = ""  # diffusers folder
    models.transformer = ""  # folder or file to use instead of the editor's; "": none
    models.judge = ""  # transformers folder
    models.paste_back = False  # keep the source's pixels where the mask is 0
    models.solver = "euler"  # of all sampling; "ab2": of second order, for fewer steps (ours)
    models.dtype = "bfloat16"  # compute dtype: "float32" or "bfloat16"
    models.remat = "full"  # remat policy: "none", "dots", "attention", "offload" or "full"

    config.curate = curate = ConfigDict()  # used if stages has "curate", or by --stage=curate
    curate.pictures = ""  # folder of pictures to choose from, with its subfolders
    curate.clip = ""  # CLIP to compare them with: a transformers folder, or a hub id
    curate.batch_size = 256  # pictures per batch of CLIP
    curate.duplicates = 0.97  # least cosine of near-duplicates, of which one stays; 2: none (ours)
    curate.clusters = 1000  # K of K-means (ours)
    curate.near = 8  # pictures kept per cluster, nearest to its centre (ours)
    curate.far = 2  # pictures kept per cluster, drawn from the farther half (ours)
    curate.rows = 1  # triplets per kept picture (ours)
    curate.segmentation = ""  # COCO's instances JSON, or a folder of PNG masks; "": none
    curate.words = ""  # JSON lines of words and their boxes; "": none
    curate.captions = ""  # JSON lines of captions, beside those in .txt files; "": none
    curate.tasks = ConfigDict()  # weights of the tasks, the paper's p_k; 0: never
    curate.tasks.fill = 0.5
    curate.tasks.extend_with_prompt = 0.125
    curate.tasks.extend_without_prompt = 0.125
    curate.tasks.removal = 0.25
    curate.fill = ConfigDict()  # weights of the masks of fills (ours)
    curate.fill.boxes = 1.0  # prompt: the picture's caption
    curate.fill.strokes = 1.0  # the same
    curate.fill.silhouettes = 2.0  # prompt: the object's category
    curate.fill.words = 1.0  # prompt: the word
    curate.extend = ConfigDict()  # weights of the masks of extensions (ours)
    curate.extend.all_sides = 1.0  # borders on all sides
    curate.extend.some_sides = 1.0  # borders on one to three sides
    curate.removal = ConfigDict()  # weights of the masks of removals (ours)
    curate.removal.silhouettes = 1.0  # the object's outline
    curate.removal.boxes = 1.0  # the box around it
    curate.area = (0.02, 0.4)  # range of a mask's area, as a share of the picture's
    curate.border = (0.15, 0.4)  # range of an extended border, as a share of the shorter side
    curate.grow = 0.015  # growth of outlines and their boxes, as a share of the shorter side
    curate.sheet = 100  # clusters shown on the contact sheet

    config.data = data = ConfigDict()
    data.source = "folder"  # "folder": your images; "tfds": a TFDS data set; or your own plug-in
    data.path = ""  # folder, file of rows or tars, or TFDS set; or "stage:curate": its output
    data.paths = "inside"  # of pictures in rows: "inside" the folder only, or "anywhere"
    data.mask_indices = ()  # values of masks that mark the area, for label maps; (): white does
    data.image_size = 1024  # height and width of a square image in pixels
    data.aspect_ratios = (1.0,)  # width / height; each image of a folder uses the nearest one
    data.small_pictures = "upscale"  # images smaller than that: "upscale" or "refuse" (ours)

    config.guidance = guidance = ConfigDict()  # default of rl and evaluate
    guidance.guidance_scale = 1.0  # embedded (distilled) guidance; the paper's at inference: 1
    guidance.true_cfg_scale = 4.0  # classifier-free; 1: none; the paper's at inference: 4
    guidance.negative_prompt = "nsfw"  # for true CFG; the paper's at inference

    config.embed = embed = ConfigDict()
    embed.max_length = 512  # T5 tokens per prompt, including padding
    embed.batch_size = 64  # prompts per batch

    config.candidates = candidates = ConfigDict()
    candidates.count = 4  # N of the paper: candidates per triplet
    candidates.train = 20000  # number of training triplets that get candidates
    candidates.test = 400  # number of test triplets, to measure the judge's accuracy
    candidates.tasks = "as_sampled"  # tasks "evenly", or "as_sampled" by rl.task_probabilities
    candidates.chosen_by = "hash"  # triplets: by "hash", or "clusters", the folders of curate
    candidates.batch_size = 64  # images per batch
    candidates.num_steps = (10, 20, 30, 50)  # sampling steps, drawn from these
    candidates.negative_prompts = NEGATIVE_PROMPTS  # one is drawn per candidate; "": empty prompt
    candidates.guidance_scale = (1.0, 30.0)  # range of the embedded guidance
    candidates.true_cfg_scale = (1.0, 6.0)  # range of the true CFG scale
    candidates.guided_by = "either"  # draw "either" scale (the other at its minimum) or "both"
    candidates.transform = ""  # plug-in applied to finished images; "": none
    candidates.test_like_rl = False  # test candidates have the settings of rl, and differ by noise
    candidates.strength = (0.6, 1.0)  # range of the initial noise strength; 1: pure noise

    config.rounds = 1  # of candidates, annotate, reward and rl (ours); 1: the paper's
    config.later_rounds = later = ConfigDict()  # rounds 2, 3, ...; the rest is as in round 1
    later.train = placeholder(int)  # triplets with candidates; None: as candidates.train
    later.test = placeholder(int)  # held-out triplets with candidates; None: as candidates.test
    later.triplets = "other"  # than in earlier rounds, while there are any; or the "same"
    later.from_policy = placeholder(int)  # candidates of a triplet by the policy; None: half
    later.weights = "ema"  # weights of the last round's editor that make them: "policy" or "ema"
    later.share = placeholder(float)  # at least, of the judge's batches; None: as many as there are
    later.judge = "first"  # the judge starts from models.judge ("first") or from the "last" round's
    later.reward_steps = placeholder(int)  # None: as reward.steps
    later.rl = "policy"  # rl goes on from the last round's "policy", or starts from the "base"
    later.rl_steps = placeholder(int)  # of a later round; None: as rl.steps

    config.annotate = annotate = ConfigDict()
    annotate.by = "people"  # "people", "web" (people; the run serves the page), or a plug-in
    annotate.path = ""  # file or folder of people's answers; "": questions/questions.jsonl
    annotate.enough = 1.0  # fraction of questions that must be answered to continue (ours)
    annotate.web = web = ConfigDict()  # the annotation server, of a run or of `onereward people`
    web.host = "127.0.0.1"  # address to listen on; "0.0.0.0": reachable by others, see url
    web.port = 8000  # port to listen on
    web.url = ""  # address that people use if it is another, e.g. of a TLS proxy, https://...
    web.database = ""  # file or SQLAlchemy URL of the answers; "": people/people.sqlite
    web.overlap = 1  # annotators per question
    web.lease_minutes = 30.0  # how long a question is kept for who has begun it
    web.gold = ""  # file of answers that are known to be right, to measure annotators; "": none
    web.gold_every = 10  # one in so many questions of an annotator is such a one
    web.guidelines = ""  # folder with <dimension>.md and example pictures; "": none

    config.reward = reward = ConfigDict()
    reward.steps = 5000  # updates of the judge
    reward.batch_size = 16  # pairs per update, each in both orders
    reward.microbatches = 1  # gradient accumulation, to save memory
    reward.optimizer = optimizer(1e-6, warmup_steps=100)
    reward.lora = lora(JUDGE_LAYERS)
    reward.jitter = jitter()
    reward.preferences = ()  # preferences folders whose answers are also trained on; (): none
    reward.consensus = "each"  # answers of several: "each" a pair, "majority" or "soft" labels
    reward.undecided = "leave"  # no difference: "leave" it out, or pairs with label "half"
    reward.between = False  # also train on (best, middle) and (middle, worst) pairs
    reward.mirror = 0.0  # probability that a pair is mirrored (not for text alignment)
    reward.tasks = "as_found"  # draw tasks "evenly", or "as_found": all pairs equally often
    reward.crop = 0.0  # the judge sees a part: sides in those of the mask's box, from 1; 0.0: whole
    reward.source = ""  # "outlined" or "blanked": the judge sees the source picture too, so masked
    reward.query_template = ""  # file with the judge's questions; "": the package's, ours
    reward.suffix_length = 96  # tokens of a query's suffix, including a quoted prompt
    reward.judges = 1  # judges trained with other seeds, for config.rl.ensemble (ours)
    reward.judge_share = 1.0  # share of the photographs that each judge learns from (ours)
    reward.held_out = 0.0  # share of the photographs for a held-out judge alone; 0: none (ours)
    reward.validation = 0.0  # share of a judge's photographs kept to validate it (ours)
    reward.keep_best = False  # keep the judge of the best validation, not the last (ours)
    reward.label_smoothing = 0.0  # share of the label spread evenly over both answers (ours)
    reward.unfit_prompts = "refuse"  # prompts that do not fit: "refuse" or "cut" them
    reward.kind = "pairwise"  # judge that compares two pictures, or "scalar": one at a time
    reward.vocabulary = "full"  # P("Yes") over the "full" vocabulary or over "yes_no"
    reward.curve_shares = (0.125, 0.25, 0.5)  # of source pictures, for the stage label_curve
    reward.evaluate_every = 500  # steps between evaluations
    reward.checkpoint_every = 500  # steps between checkpoints
    reward.log_every = 10  # steps between log entries
    reward.max_refused = 10  # NaN or Inf steps after which the run stops

    config.rl = rl = ConfigDict()
    rl.algorithm = "frozen"  # Algorithm 1; "dynamic" (2), a method of docs/methods.md, or a plug-in
    rl.steps = 8000  # updates of the policy
    rl.batch_size = 8  # triplets per update; a multiple of mesh data * fsdp
    rl.microbatches = 1  # gradient accumulation, to save memory
    rl.optimizer = optimizer(1e-5, warmup_steps=100)
    rl.lora = lora(EDITOR_LAYERS)
    rl.reward = (
        "judge"  # "judge", or a module or .py file with make_reward(config, mesh) of your own
    )
    rl.reward_upper_bound = 0.9  # lambda of Eq. 5: no gradient above this P("Yes")
    rl.orders = "one"  # ask (policy, reference) in "one" order, as in the paper, or in "both"
    rl.ensemble = "mean"  # of several judges: "mean", "least" or "spread", mean - k * deviation
    rl.ensemble_spread = 1.0  # k of "spread"
    rl.held_out_every = 10  # ask the held-out judge, if there is one, in one of so many steps
    rl.stop_at_gap = 0.0  # stop when reward - held-out reward is above this; 0: never (ours)
    rl.dimension_weights = ConfigDict()  # of the mean over E_k; all equal in the paper
    rl.dimension_weights.structure = 1.0
    rl.dimension_weights.consistency = 1.0
    rl.dimension_weights.text_alignment = 1.0
    rl.dimension_weights.aesthetics = 1.0
    rl.dimension_weights.removal_quality = 1.0
    rl.dimension_weights.update(dict.fromkeys(OWN.dimensions, 1.0))
    # Weights of the dimensions beside those: "mean" (the paper), "worst" (the largest loss most),
    # "floors" (more if judged below the floor), "spread" (by 1 / deviation of the reward).
    rl.balance = "mean"  # or "worst", "floors", "spread"
    rl.balance_temperature = 0.1  # of "worst": softmax of the losses / temperature
    rl.floor = 0.5  # of "floors": P("Yes"); 0.5 is as good as the reference
    rl.floor_gain = 10.0  # of "floors": weight 1 + gain * max(0, floor - mean reward) / floor
    rl.balance_window = 64  # of "floors", "spread": samples of a task in the running means
    rl.project_conflicts = "none"  # PCGrad: between "dimensions" at the image, "tasks", or "both"
    rl.vocabulary = "full"  # as in reward
    rl.judge_int8 = False  # weight-only int8 for the judge's linear layers
    rl.ema_decay = 0.999  # tau: EMA of the policy, the reference of Algorithm 2
    rl.num_steps = 40  # points of the sampling grid
    rl.t1 = 30  # first grid index of the differentiable step
    rl.t2 = 39  # last grid index of the differentiable step
    rl.surrogate = "single"  # as the paper; or "endpoint", "several", "sparse", "leap" (ours)
    rl.active_steps = 3  # steps with gradient of "several" and "sparse"
    rl.leap_discount = 0.3  # of the gradient from the second to the first leap of "leap"
    rl.shared_noise = "none"  # of policy and reference: "none", "outside" the mask, or "all"
    rl.gradient_in_mask = False  # no gradient through pixels outside the mask
    rl.rollout_int8 = False  # int8 products in all passes of FLUX without gradient (ours)
    rl.references = "rollout"  # sampled in each step, as in Algorithm 1; or a "bank" (ours)
    rl.bank_size = 4  # of "bank": pictures of the reference per triplet, at most
    rl.anchor_weight = 0.0  # of the distance to the initial weights' velocities; ours
    # Read by "nft" and "grpo" only, which sample groups and take no gradient through the judge:
    rl.group_size = 4  # samples per triplet; microbatches are of batch_size * group_size samples
    rl.compare = "reference"  # with a sample of the "reference", or within the "group"
    rl.opponents = 1  # of each sample within its group, up to group_size - 1
    rl.trained_levels = 4  # noise levels (nft) or steps (grpo) trained on, of each sample
    rl.advantage_limit = 5.0  # in standard deviations; advantages are clipped to it
    rl.nft_beta = 1.0  # beta of "nft": the smaller, the further from the old policy
    rl.grpo_noise = 0.7  # a of "grpo": noise of the sampling steps
    rl.clip_range = 1e-4  # of the ratios of probabilities of "grpo"
    rl.inner_updates = 1  # updates per rollout of "grpo", each on its share of the samples
    # The paper does not state the guidance during training; we train as at inference. True CFG
    # doubles the policy's forward passes, and the memory of the differentiable one. To train
    # without: policy_true_cfg_scale=1, prediction_true_cfg_scale=1 and evaluate.true_cfg_scale=1,
    # because the policy is then trained to look right without it.
    # None: as in config.guidance.
    rl.guidance_scale = placeholder(float)  # embedded guidance of policy and reference
    rl.policy_true_cfg_scale = placeholder(float)  # of the policy's rollout
    rl.prediction_true_cfg_scale = placeholder(float)  # of the differentiable forward pass
    rl.reference_true_cfg_scale = placeholder(float)  # of the reference
    rl.negative_prompt = placeholder(str)  # for true CFG
    rl.task_probabilities = ConfigDict()  # p_k, the paper's; unnormalized, 0: never
    rl.task_probabilities.fill = 0.5
    rl.task_probabilities.extend_with_prompt = 0.125
    rl.task_probabilities.extend_without_prompt = 0.125
    rl.task_probabilities.removal = 0.25
    rl.task_probabilities.update({name: task.probability for name, task in OWN.tasks.items()})
    rl.task_per = "sample"  # draw the task per "sample" or per "iteration"
    rl.flow_matching_weight = 0.0  # of the flow-matching loss, on triplets with a target; ours
    rl.error_area = "mask"  # of losses on latents: inside the "mask", or of the "whole" picture
    rl.dpo_beta = 2000.0  # beta of dpo; the one of Diffusion-DPO for Stable Diffusion 1.5
    rl.jitter = jitter()
    rl.checkpoint_every = 250  # steps between checkpoints
    rl.sample_every = 250  # steps between grids of sample images
    rl.keep_every = 0  # steps between kept weights, the EMA's, for comparisons (ours); 0: none
    rl.conflicts_every = 0  # steps between cosines of gradients of dimensions, tasks; 0: never
    rl.log_every = 10  # steps between log entries
    rl.max_refused = 10  # NaN or Inf steps after which the run stops

    config.evaluate = evaluate = ConfigDict()
    evaluate.triplets = ConfigDict()  # number of held-out triplets per task
    evaluate.triplets.fill = 130
    evaluate.triplets.extend_with_prompt = 100
    evaluate.triplets.extend_without_prompt = 100
    evaluate.triplets.removal = 100
    evaluate.triplets.update(dict.fromkeys(OWN.tasks, 100))
    evaluate.batch_size = 64  # images per batch
    evaluate.num_steps = 50  # sampling steps
    evaluate.guidance_scale = placeholder(float)  # embedded guidance; None: as in guidance
    evaluate.true_cfg_scale = placeholder(float)  # true CFG; None: as in guidance
    evaluate.negative_prompt = placeholder(str)  # for true CFG; None: as in guidance
    evaluate.oracle = ""  # plug-in that scores edits by the ground truth; "": none
    evaluate.judge_same_margin = 0.1  # minimum preference of the judge for Good or Bad; else Same
    evaluate.judge = ""  # folder or hub id of a held-out judge (ours); "": that of reward, if any
    evaluate.questions = 130  # blinded comparisons by people, per task (ours); 0: none
    evaluate.usability = 0  # per task and editor: results that people call usable or not (Table 2)
    evaluate.editors = ()  # other editors for people to compare with the base: "name=folder"
    evaluate.answers = ""  # file or folder of their answers; "": questions-ab/questions.jsonl
    evaluate.weights = "ema"  # weights of the trained editor: "policy" or "ema"
    evaluate.pictures = 8  # triplets shown in the report, per task

    config.benchmark = benchmark = ConfigDict()  # used by --stage=benchmark, or if stages has it
    benchmark.folders = ()  # benchmarks: "name=folder", or "name=folder:part"
    benchmark.editors = ("base", "policy")  # or "name=folder" of weights or finished pictures
    benchmark.rows = 0  # rows of each benchmark, the first ones; 0: all
    benchmark.longest_side = 1024  # longer sides are scaled down to it; 0: never
    benchmark.batch_size = 8  # pictures per batch of a host
    benchmark.lpips = ""  # safetensors file of LPIPS, or its folder; "": not measured
    benchmark.clip = ""  # CLIP with both towers: a transformers folder, or a hub id; "": none
    benchmark.judge = "own"  # the judge asked: the run's "own", a folder or hub id, or "": none
    benchmark.pictures = 12  # rows of each benchmark shown on the page

    config.export = export = ConfigDict()
    export.weights = "ema"  # weights of the trained editor: "ema" or "policy"
    export.dtype = "bfloat16"  # of the files
    export.editor = "pipeline"  # export the full "pipeline" or only its "transformer"
    export.comfyui = ""  # also a single file for ComfyUI, in this dtype; "": none
    export.adapter = "diffusers"  # names in the file of a LoRA: or "kohya", "comfyui"
    export.shard_gb = 5.0  # maximum size of a weight file in GB
    export.editor_card = card("", "apache-2.0")
    export.judge_card = card("", "apache-2.0")
    return config


def card(
    base_model: str, license: str, license_name: str = "", license_link: str = ""
) -> ConfigDict:
    """Metadata of a model card."""
    section = ConfigDict()
    section.base_model = base_model  # hub id of a base in a local folder; "": what the run knows
    section.license = license  # the hub's license id
    section.license_name = license_name  # if license is "other"
    section.license_link = license_link  # if license is "other"
    return section


def optimizer(
    learning_rate: float, warmup_steps: int, schedule: str = "constant", final_fraction: float = 0.0
) -> ConfigDict:
    """AdamW and its learning rate schedule."""
    section = ConfigDict()
    section.learning_rate = learning_rate  # peak
    section.schedule = schedule  # "constant" or "cosine", after the warm-up
    section.warmup_steps = warmup_steps  # linear warm-up from 0
    section.final_fraction = final_fraction  # end of "cosine", as a fraction of the peak
    section.b1 = 0.9  # Adam's
    section.b2 = 0.999  # Adam's
    section.eps = 1e-8  # Adam's
    section.weight_decay = 0.0  # decoupled, on kernels, embeddings and adapters
    section.clip_norm = 1.0  # clipping threshold of the global gradient norm
    section.moments = "float32"  # dtype of Adam's moments: "float32", "bfloat16" (m), "int8" (both)
    return section


def lora(targets: str) -> ConfigDict:
    """A LoRA adapter to train."""
    section = ConfigDict()
    section.rank = 0  # rank of the adapter; 0: train the full model
    section.alpha = 16.0  # the adapter is scaled by alpha / rank
    section.targets = targets  # regular expression of the adapted layers' full names
    return section


def jitter(noise: float = 0.0, shift: int = 0, negative: float = 0.0) -> ConfigDict:
    """Augmentation of image pairs before the judge; see `reward.jitter`."""
    section = ConfigDict()
    section.noise = noise  # maximum standard deviation of the noise, for values in [-1, 1]
    section.shift = shift  # maximum shift of each image in pixels
    section.negative = negative  # probability of inverting brightness, if no prompt is judged
    return section
