"""A whole RL set-up of random models, as small as the real interfaces allow."""

import functools

import flax.linen as nn
import jax
import numpy as np

from onereward_jax.mini.mini_tokenizers import qwen_tokenizer
from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.models.qwen2_5_vl import (
    Qwen2_5_VL,
    Qwen2_5_VLConfig,
    TextConfig,
    VisionConfig,
    init_params,
)
from onereward_jax.models.vae import AutoencoderKL, VaeConfig
from onereward_jax.parallel import make_mesh
from onereward_jax.policy import FillPolicy, NoiseSchedule
from onereward_jax.policy import policy_loader as editor_loading
from onereward_jax.reward import ImageProcessor, QueryTokenizer, Scorer, packaged_template
from onereward_jax.tasks import TASKS, Task
from onereward_jax.training.rl_config import Frozen, RLModels

SIDE = 16
TEXT_WIDTH, POOLED_WIDTH, TEXT_LENGTH = 8, 8, 3
PROMPTS = ("a red apple", "a green apple")
TASK_CYCLE = (
    Task.FILL,
    Task.REMOVAL,
    Task.EXTEND_WITH_PROMPT,
    Task.EXTEND_WITHOUT_PROMPT,
)
PROCESSOR = ImageProcessor(patch_size=4, min_pixels=8 * 8, max_pixels=64 * 64)


@functools.cache
def tokenizer():
    return qwen_tokenizer(packaged_template().texts())


@functools.cache
def queries() -> QueryTokenizer:
    tokens = PROCESSOR.tokens_per_image(SIDE, SIDE)
    return QueryTokenizer(tokenizer(), tokens, suffix_length=40)


@functools.cache
def models() -> RLModels:
    flux = FluxConfig(
        in_channels=48,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        axes_dims_rope=(4, 2, 2),
    )
    vae = VaeConfig(
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4
    )
    judge = Qwen2_5_VLConfig(
        text_config=TextConfig(
            vocab_size=len(tokenizer()) + len(tokenizer()) % 2,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            mrope_section=(1, 1, 2),
        ),
        vision_config=VisionConfig(
            depth=2,
            hidden_size=16,
            intermediate_size=16,
            num_heads=2,
            patch_size=4,
            window_size=8,
            fullatt_block_indexes=(1,),
            out_hidden_size=16,
        ),
        image_token_id=tokenizer().convert_tokens_to_ids("<|image_pad|>"),
        tie_word_embeddings=True,
    )
    editor = FillPolicy(FluxTransformer(flux), AutoencoderKL(vae), NoiseSchedule())
    scorer = Scorer(Qwen2_5_VL(judge), PROCESSOR, queries().layout, answers_only=True)
    return RLModels(editor, scorer)


def lively(params, seed: int, size: float = 0.3):
    """`params` with noise on every entry, so that no layer is idle as after initialisation."""
    rng = np.random.default_rng(seed)

    def shaken(leaf):
        return np.asarray(leaf + size * rng.normal(size=leaf.shape), np.float32)

    return jax.tree.map(shaken, params)


@functools.cache
def weights():
    """(transformer, reference transformer, vae, judge) on the host."""
    editor, scorer = models().editor, models().scorer
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    params = jax.device_get(editor_loading.init_params(editor, jax.random.key(0), mesh))
    judge = nn.meta.unbox(jax.jit(functools.partial(init_params, scorer.model))(jax.random.key(1)))
    return (
        lively(params.transformer, 2),
        lively(params.transformer, 3),
        lively(params.vae, 4, 0.1),
        lively(jax.device_get(judge), 5),
    )


def frozen(reference: bool = True) -> Frozen:
    _, other, vae, judge = weights()
    return Frozen(other if reference else None, vae, judge)


def rl_batch(size: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """Samples of all tasks in turn."""
    rng = np.random.default_rng(seed)
    tasks = [TASK_CYCLE[index % len(TASK_CYCLE)] for index in range(size)]
    asked = queries().encode(tasks, [PROMPTS[index % 2] for index in range(size)])

    def normal(*shape):
        return rng.normal(size=(size, *shape)).astype(np.float32)

    mask = np.zeros((size, SIDE, SIDE, 1), np.float32)
    mask[:, 4:12, 4:12] = 1.0
    return {
        "image": np.tanh(normal(SIDE, SIDE, 3)),
        "target": np.tanh(normal(SIDE, SIDE, 3)),
        "has_target": np.arange(size) % 3 == 0,
        "mask": mask,
        "prompt_embeds": normal(TEXT_LENGTH, TEXT_WIDTH),
        "pooled_prompt_embeds": normal(POOLED_WIDTH),
        "negative_prompt_embeds": normal(TEXT_LENGTH, TEXT_WIDTH),
        "negative_pooled_prompt_embeds": normal(POOLED_WIDTH),
        "task": np.array([TASKS.index(task) for task in tasks], np.int32),
        "query_prefix": asked.prefix,
        "query_suffix": asked.suffix,
        "query_suffix_mask": asked.suffix_mask,
        "dimension_mask": asked.dimension_mask,
        "index": np.arange(size, dtype=np.int32) + 100 * seed,
    }
