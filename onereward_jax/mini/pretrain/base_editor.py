"""The mini world's base editor: flow matching on scenes encoded by the frozen autoencoder."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.common.rng import stream
from onereward_jax.convert import EditorTokenizers, Weights, write_editor_folder
from onereward_jax.mini.mini_tokenizers import clip_tokenizer, t5_tokenizer
from onereward_jax.mini.pretrain.autoencoder import read_autoencoder
from onereward_jax.mini.pretrain.flow_step import make_flow_step
from onereward_jax.mini.pretrain.latents import scene_latents
from onereward_jax.mini.pretrain.train import optimizer_config, train_model
from onereward_jax.mini.world import prompts as all_prompts
from onereward_jax.models.clip import ClipTextConfig, ClipTextModel
from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.models.t5 import T5Config, T5Encoder
from onereward_jax.parallel import abstract_arrays, mesh_jit
from onereward_jax.policy import FillPolicy, NoiseSchedule, TextEncoder
from onereward_jax.tasks import NEGATIVE_PROMPTS
from onereward_jax.training.optimizer import make_optimizer
from onereward_jax.training.train_state import abstract_state, place_state, shardings_of

PROMPT_TOKENS = 12
"""T5 tokens of a prompt, padding included."""

CLIP_TOKENS = 24
"""CLIP tokens of a prompt, padding included."""

FLUX_CONFIG = FluxConfig(
    in_channels=384,
    out_channels=64,
    num_layers=2,
    num_single_layers=4,
    attention_head_dim=32,
    num_attention_heads=4,
    joint_attention_dim=64,
    pooled_projection_dim=64,
    guidance_embeds=True,
    axes_dims_rope=(8, 12, 12),
)
"""FLUX.1-Fill's shape with 4 heads of 32 channels and 2 + 4 blocks."""

SCHEDULER = {
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": False,
}
"""No timestep shift towards noise: an image has only 16 tokens."""

EDITING = {"num_inference_steps": 8, "true_cfg_scale": 2.0, "paste_back": True}
"""As `configs/mini.py` uses it."""


def train_editor(context: StageContext) -> Results:
    """Trains transformer and text encoders; writes the folder `editor` (diffusers layout).

    Two phases: the second one has more extensions, and targets with flaws (`flawed_targets`), so
    that reinforcement has something to choose from.
    """
    config, mesh = context.config, context.mesh
    vae, vae_params = read_autoencoder(context.folder / "vae")
    transformer = FluxTransformer(FLUX_CONFIG, remat="dots")
    editor = FillPolicy(transformer, vae, NoiseSchedule.from_dict(SCHEDULER))
    text = text_encoder()
    init, abstract_params = _initialiser(editor, text, config.seed, mesh)
    train = functools.partial(
        _train, context, editor=editor, vae_params=vae_params, text=text, params=abstract_params
    )
    able = train("editor", create=init)
    params = jax.device_get(train("editor_flawed", create=lambda: able))
    write_editor_folder(
        context.folder / "editor",
        transformer=Weights(params["transformer"], _hugging_face(FLUX_CONFIG), "bfloat16"),
        vae=context.folder / "vae",
        text_encoder=Weights(params["clip"], _hugging_face(text.clip.config, "CLIPTextModel")),
        text_encoder_2=Weights(params["t5"], _hugging_face(text.t5.config, "T5EncoderModel")),
        tokenizer=text.tokenizers.clip,
        tokenizer_2=text.tokenizers.t5,
        scheduler=SCHEDULER,
        editing={**EDITING, "resolution": config.pretrain.image_size, "aspect_ratios": [1.0]},
    )
    return {"editor_parameters": sum(leaf.size for leaf in jax.tree.leaves(params["transformer"]))}


def _train(
    context: StageContext,
    name: str,
    *,
    editor: FillPolicy,
    vae_params: PyTree,
    text: TextEncoder,
    params: PyTree,
    create: Callable[[], PyTree],
) -> PyTree:
    """The EMA after the training run `name`, which starts from `create()`; `params`: abstract."""
    config, mesh = context.config, context.mesh
    section, prompts = config.pretrain[name], all_prompts()
    optimizer = make_optimizer(optimizer_config(config, name))
    abstract = abstract_state(params, optimizer, mesh, with_ema=True)
    scenes = scene_latents(
        context.folder / f"{name}_scenes.safetensors",
        editor,
        vae_params,
        count=section.scenes,
        size=config.pretrain.image_size,
        seed=config.seed,
        shares=section.shares.to_dict(),
        faint=section.faint,
        opacity=section.opacity,
        flaws=section.flaws,
    )
    unprompted = [prompts.index(prompt) for prompt in NEGATIVE_PROMPTS]

    def draw(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        row = int(rng.integers(section.scenes))
        element = {name: array[row] for name, array in scenes.items()}
        if rng.random() < section.drop_prompt:
            element["prompt"] = np.int32(rng.choice(unprompted))
        return {**element, "index": np.int32(index)}

    batches = grain.MapDataset.range(2**30).seed(config.seed).random_map(draw)
    step = make_flow_step(
        editor,
        text,
        text.tokenize(prompts),
        optimizer,
        section.ema_decay,
        abstract,
        mesh,
        config.seed,
    )
    return train_model(
        context,
        name,
        step,
        abstract,
        lambda: place_state(create(), optimizer, mesh, with_ema=True),
        batches.batch(section.batch_size),
    ).ema


def text_encoder() -> TextEncoder:
    """Small T5 and CLIP with tokenizers learned from the mini world's prompts."""
    clip_ids = clip_tokenizer(all_prompts(), max_length=CLIP_TOKENS)
    t5_ids = t5_tokenizer(all_prompts(), max_length=PROMPT_TOKENS)
    clip = ClipTextConfig(
        vocab_size=len(clip_ids),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CLIP_TOKENS,
        eos_token_id=clip_ids.eos_token_id,
    )
    t5 = T5Config(
        vocab_size=len(t5_ids),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    tokenizers = EditorTokenizers(clip=clip_ids, t5=t5_ids)
    return TextEncoder(ClipTextModel(clip), T5Encoder(t5), tokenizers, PROMPT_TOKENS)


def _initialiser(
    editor: FillPolicy, text: TextEncoder, seed: int, mesh: Mesh
) -> tuple[Callable[[], PyTree], PyTree]:
    """A function that makes all random parameters on the mesh, and their shapes and shardings."""
    flux, batch = editor.transformer.config, mesh.size
    ids = jnp.zeros((batch, 1), jnp.int32)

    def init() -> PyTree:
        transformer = editor.transformer.init(
            stream(seed, "transformer_init"),
            jnp.zeros((batch, 1, flux.in_channels)),
            jnp.zeros((batch, 1, flux.joint_attention_dim)),
            jnp.zeros((batch, flux.pooled_projection_dim)),
            jnp.zeros((batch,)),
            jnp.zeros((1, 3)),
            jnp.zeros((1, 3)),
            jnp.ones((batch,)),
        )
        clip = text.clip.init(stream(seed, "clip_init"), ids)
        t5 = text.t5.init(stream(seed, "t5_init"), ids)
        return {
            "transformer": transformer["params"],
            "clip": clip["params"],
            "t5": t5["params"],
        }

    boxed = jax.eval_shape(init)
    abstract = abstract_arrays(boxed, mesh)
    shardings = shardings_of(abstract)
    return mesh_jit(lambda: nn.meta.unbox(init()), mesh, out_shardings=shardings), abstract


def _hugging_face(config: object, architecture: str | None = None) -> dict[str, object]:
    """The fields of a config as in its Hugging Face config file."""
    fields = dataclasses.asdict(config)
    if architecture is None:
        return {"_class_name": "FluxTransformer2DModel", **fields}
    kinds = {"CLIPTextModel": "clip_text_model", "T5EncoderModel": "t5"}
    return {"architectures": [architecture], "model_type": kinds[architecture], **fields}
