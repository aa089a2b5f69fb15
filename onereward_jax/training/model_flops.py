"""Model FLOPs of a step, for MFU: every forward and backward pass once, without remat.

Forward passes are traced from shapes and counted. A gradient with respect to activations costs one
more forward pass, a gradient with respect to weights another one.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from onereward_jax.convert import QWEN2_5_VL, find_targets
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.models.flux import INT8_LAYERS
from onereward_jax.models.int8 import Quantized, quantize
from onereward_jax.models.lora import LoraConfig
from onereward_jax.policy.fill_policy import FillPolicy
from onereward_jax.policy.model_inputs import Condition, PromptEmbeds
from onereward_jax.reward import QueryBatch, Scorer, queries_in
from onereward_jax.training.count_jaxpr_flops import Assumptions, function_flops
from onereward_jax.training.rl_config import RLConfig, RLModels
from onereward_jax.training.rl_surrogate import active_steps

Shape = jax.ShapeDtypeStruct


class PassFlops(NamedTuple):
    """FLOPs of one forward pass over a batch: of the transformer, the VAE's halves, the judge."""

    velocity: float
    encode: float
    decode: float
    score: float


def pass_flops(models: RLModels, params: Any, batch: Any, assumptions: Assumptions) -> PassFlops:
    """`PassFlops` for the size and the number of pictures of a batch; as `rl_model_flops`."""
    transformer, vae, judge = params
    samples, size = batch["image"].shape[0], batch["image"].shape[1:3]
    length = batch["prompt_embeds"].shape[1]
    return PassFlops(
        _velocity(models.editor, transformer, samples, size, length),
        _encode(models.editor, vae, samples, size),
        _decode(models.editor, vae, samples, size),
        _score(models.scorer, "score", judge, samples, size, _asked(models, batch), assumptions),
    )


def rl_model_flops(
    models: RLModels, config: RLConfig, params: Any, batch: Any, assumptions: Assumptions
) -> float:
    """Model FLOPs of a step of `training.rl_step`.

    Args:
      models, config: as in `make_rl_step`.
      params: shapes of (transformer, vae, judge); with LoRA, the base transformer (the adapter's
        own FLOPs are not counted).
      batch: shapes of a batch.
      assumptions: `loop_trips` is the mean number of steps of the policy's rollout.
    """
    transformer, vae, judge = params
    size, samples = batch["image"].shape[1:3], batch["image"].shape[0]
    text_length = batch["prompt_embeds"].shape[1]
    velocity = _velocity(models.editor, transformer, samples, size, text_length)
    # With LoRA, the base has no weight gradients.
    differentiated = 2 if config.lora else 3
    rolled, branches = config.references == "rollout", _branches(config.prediction_true_cfg_scale)
    forwards = (
        _rollout_passes(config, assumptions)
        + differentiated * active_steps(config) * branches
        + _anchor_passes(config) * branches
        + (differentiated if config.flow_matching_weight else 0)
    )
    encode = _encode(models.editor, vae, samples, size)
    decode = _decode(models.editor, vae, samples, size)
    queries = _asked(models, batch)
    score = _score(models.scorer, "score", judge, samples, size, queries, assumptions)
    judges = getattr(models.scorer, "judges", 1)
    tower = judges * _tower(models.scorer, _one_of(models, judge), samples, size, assumptions)
    held_out = held_out_flops(models, config, params, batch, assumptions)
    encodes = 2 if config.flow_matching_weight else 1
    # VAE and judge have no weight gradients; the reference image and the source of the edit have no
    # backward pass. A scalar judge sees the reference image alone.
    sources = _sources(models.scorer)
    if models.scorer.layout.pictures == 1:
        backward = (score - sources * tower) / 2
    else:
        backward = score - (sources + 1) * tower
    judging = score + backward + held_out
    decodes = 3 if rolled else 2
    return forwards * velocity + encodes * encode + decodes * decode + judging


def rollout_int8_flops(
    models: RLModels, config: RLConfig, transformer: Any, batch: Any, assumptions: Assumptions
) -> float:
    """Those of `rl_model_flops` that are products of int8 with int8; 0 without `rollout_int8`.

    `transformer` are the shapes of its full weights; other arguments as of `rl_model_flops`.
    """
    if not config.rollout_int8:
        return 0.0
    rounded = rounded_shapes(transformer)
    size, samples = batch["image"].shape[1:3], batch["image"].shape[0]
    text_length = batch["prompt_embeds"].shape[1]
    only = Assumptions(only_int8=True)
    velocity = _velocity(models.editor, rounded, samples, size, text_length, only)
    return _rollout_passes(config, assumptions) * velocity


def int8_passes(config: RLConfig, assumptions: Assumptions) -> float:
    """Forward passes in int8 per step, with the branches of guidance as one."""
    rolled = config.num_steps if config.references == "rollout" else 0
    return rolled + assumptions.loop_trips if config.rollout_int8 else 0.0


def rounded_shapes(transformer: Any) -> Quantized:
    """Shapes of the weights of passes in int8, from those of the full ones."""
    return jax.eval_shape(lambda leaves: quantize(leaves, INT8_LAYERS), _bare(transformer))


def _rollout_passes(config: RLConfig, assumptions: Assumptions) -> float:
    """Forward passes without gradient, of reference and policy, for one branch of guidance each."""
    reference = config.num_steps * _branches(config.reference_true_cfg_scale)
    policy = assumptions.loop_trips * _branches(config.policy_true_cfg_scale)
    return policy + (reference if config.references == "rollout" else 0)


def _branches(scale: float) -> int:
    return 1 if scale == 1.0 else 2


def held_out_flops(
    models: RLModels, config: RLConfig, params: Any, batch: Any, assumptions: Assumptions
) -> float:
    """Of the held-out judge about the pictures of a batch, averaged over steps; 0 without one."""
    if not config.held_out_every:
        return 0.0
    size, samples = batch["image"].shape[1:3], batch["image"].shape[0]
    judge, queries = _one_of(models, params[2]), _asked(models, batch)
    score = _score(models.held_out, "score", judge, samples, size, queries, assumptions)
    return score / config.held_out_every


def _one_of(models: RLModels, judge: Any) -> Any:
    """The weights of one judge, of those of a panel too."""
    if getattr(models.scorer, "judges", 1) == 1:
        return judge
    return jax.tree.map(lambda leaf: Shape(leaf.shape[1:], leaf.dtype), judge)


def _anchor_passes(config: RLConfig) -> int:
    """Forward passes of the initial weights."""
    if not config.anchor_weight:
        return 0
    return 1 if config.surrogate == "leap" else active_steps(config)


def matching_model_flops(
    models: RLModels,
    config: RLConfig,
    params: Any,
    batch: Any,
    assumptions: Assumptions,
    *,
    pictures: int,
    reference: bool,
) -> float:
    """Model FLOPs of a step of flow matching on given pictures.

    Args:
      models, config, params, batch, assumptions: as in `rl_model_flops`; nothing is assumed.
      pictures: pictures per sample that are encoded and predicted.
      reference: whether the reference predicts them too.
    """
    transformer, vae, _ = params
    size, samples = batch["image"].shape[1:3], batch["image"].shape[0]
    text_length = batch["prompt_embeds"].shape[1]
    velocity = _velocity(models.editor, transformer, samples, size, text_length)
    passes = (2 if config.lora else 3) + (1 if reference else 0)
    forwards, encoded = pictures * passes, pictures + 1  # the condition, once per sample
    if config.flow_matching_weight:
        forwards, encoded = forwards + (2 if config.lora else 3), encoded + 1
    return forwards * velocity + encoded * _encode(models.editor, vae, samples, size)


def reward_model_flops(
    scorer: Scorer, judge: Any, pairs: Any, assumptions: Assumptions, lora: LoraConfig | None = None
) -> float:
    """Model FLOPs of a step of `training.reward_step`, from shapes of parameters and batch.

    Those of an adapter's own factors are few and left out.
    """
    size, samples = pairs["first"].shape[1:3], pairs["first"].shape[0]
    asked = _queries(pairs)
    images = 2 * (Shape((samples, *size, 3), jnp.float32),)
    # Images get no gradient: preprocessing runs only forward, and the first layer of the vision
    # tower has only a weight gradient.
    prepare = function_flops(scorer.patches, *images, asked, assumptions=_NONE)
    patches = jax.eval_shape(scorer.patches, *images, asked)
    elements = sum(math.prod(one.shape) for one in patches)
    project = 2.0 * elements * scorer.model.config.vision_config.hidden_size
    score = _score(scorer, "score_both_orders", judge, samples, size, asked, assumptions)
    if lora is not None:  # no weight gradients, and none in a vision tower without adapter
        if any(module[0] == "visual" for module in find_targets(judge, QWEN2_5_VL, lora.targets)):
            return 2 * score - prepare - project
        towers = 2 + _sources(scorer)
        return 2 * score - towers * _tower(scorer, judge, samples, size, assumptions)
    return 3 * score - 2 * prepare - project


def edit_model_flops(
    editor: FillPolicy, transformer: Any, vae: Any, batch: Any, assumptions: Assumptions
) -> float:
    """Model FLOPs of a call of `policy.generate`, with `assumptions.loop_trips` sampling steps."""
    samples, size = batch.image.shape[0], batch.image.shape[1:3]
    text_length = batch.embeds.prompt_embeds.shape[1]
    velocity = _velocity(editor, transformer, samples, size, text_length)
    # Encodes the masked image and the source; true CFG has two branches.
    encodes, branches = 2, 2
    return (
        assumptions.loop_trips * branches * velocity
        + encodes * _encode(editor, vae, samples, size)
        + _decode(editor, vae, samples, size)
    )


def full_attention_share(scorer: Scorer) -> float:
    """Fraction of the vision tower's layers with full attention."""
    vision = scorer.model.config.vision_config
    return len(vision.fullatt_block_indexes) / vision.depth


_NONE = Assumptions()


def _velocity(
    editor: FillPolicy,
    transformer: Any,
    samples: int,
    size: Size,
    text_length: int,
    assumptions: Assumptions = _NONE,
) -> float:
    config, tokens = editor.transformer.config, editor.token_count(size)
    condition = config.in_channels - editor.latent_channels
    return function_flops(
        lambda params, latents, tokens, ids, embeds: editor.velocity(
            params, latents, Condition(tokens, ids), embeds, 0.5, 1.0
        ),
        _bare(transformer),
        Shape((samples, tokens, editor.latent_channels), jnp.float32),
        Shape((samples, tokens, condition), jnp.float32),
        Shape((tokens, 3), jnp.float32),
        PromptEmbeds(
            Shape((samples, text_length, config.joint_attention_dim), jnp.float32),
            Shape((samples, config.pooled_projection_dim), jnp.float32),
        ),
        assumptions=assumptions,
    )


def _encode(editor: FillPolicy, vae: Any, samples: int, size: Size) -> float:
    images = Shape((samples, *size, 3), jnp.float32)
    return function_flops(editor.encode_image, _bare(vae), images, assumptions=_NONE)


def _decode(editor: FillPolicy, vae: Any, samples: int, size: Size) -> float:
    shape = (samples, editor.token_count(size), editor.latent_channels)
    decode = functools.partial(editor.decode, size=size)
    return function_flops(decode, _bare(vae), Shape(shape, jnp.float32), assumptions=_NONE)


def _score(
    scorer: Scorer,
    method: str,
    judge: Any,
    samples: int,
    size: Size,
    queries: QueryBatch,
    assumptions: Assumptions,
) -> float:
    images = Shape((samples, *size, 3), jnp.float32)
    ask = getattr(scorer, method)
    return function_flops(ask, _bare(judge), images, images, queries, assumptions=assumptions)


def _tower(scorer: Scorer, judge: Any, samples: int, size: Size, assumptions: Assumptions) -> float:
    grid = scorer.processor.grid(*size)

    def tokens(params: Any, images: Any) -> Any:
        patches = scorer.processor(images)
        return scorer.model.apply({"params": params}, patches, grid, method="image_tokens")

    images = Shape((samples, *size, 3), jnp.float32)
    return function_flops(tokens, _bare(judge), images, assumptions=assumptions)


def _sources(scorer: Scorer) -> int:
    """1 if the judge sees the source of the edit, else 0."""
    return len(scorer.layout.image_starts) - scorer.layout.pictures


def _asked(models: RLModels, batch: Any) -> QueryBatch:
    """The queries of a batch of RL, as `rl_loss.judge_images` makes them."""
    queries = _queries(batch)
    if not models.scorer.view.source:
        return queries
    return queries._replace(source=_bare(batch["image"]), mask=_bare(batch["mask"]))


def _queries(batch: Any) -> QueryBatch:
    return _bare(queries_in(batch))


def _bare(tree: Any) -> Any:
    """Shapes without shardings: forward passes are traced outside any mesh."""
    return jax.tree.map(lambda leaf: Shape(leaf.shape, leaf.dtype), tree)
