"""Pre-training step of an editor: flow matching; the text encoders are trained too."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree

from onereward_jax.common.rng import stream
from onereward_jax.parallel import MeshFunction
from onereward_jax.policy import Condition, FillPolicy, TextEncoder, TextParams
from onereward_jax.policy.latent_packing import image_ids, pack_mask, token_grid
from onereward_jax.policy.text_encoders import TokenIds
from onereward_jax.training.apply_gradients import apply_gradients
from onereward_jax.training.flow_matching import flow_matching_loss
from onereward_jax.training.metrics import Metrics, mean_of
from onereward_jax.training.train_state import TrainState, jit_step


def make_flow_step(
    editor: FillPolicy,
    text: TextEncoder,
    prompts: TokenIds,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    abstract: TrainState,
    mesh: Mesh,
    seed: int,
) -> MeshFunction:
    """The jitted step (state, batch) -> (state, metrics).

    The parameters are {"transformer", "clip", "t5"}. The batch has scenes encoded by the frozen
    autoencoder: latents and masked_latents [b, n, c], mask [b, h, w, 1] in {0, 1} uint8, and
    prompt [b], an index into `prompts`.

    Args:
      editor: the static half.
      text: the text encoders.
      prompts: token ids of all prompts.
      optimizer: from `make_optimizer`.
      ema_decay: decay of the EMA, whose weights are the result.
      abstract: shapes and shardings of the state.
      mesh: the mesh.
      seed: seed of noise and noise levels; the levels are logit-normal (SD3, arXiv 2403.03206).
    """

    def loss_of(params: PyTree, batch: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        ids = TokenIds(*(jnp.take(table, batch["prompt"], axis=0) for table in prompts))
        embeds = text.embed(TextParams(clip=params["clip"], t5=params["t5"]), ids)
        mask = batch["mask"].astype(jnp.float32)
        factor = editor.vae.config.scale_factor
        tokens = jnp.concatenate([batch["masked_latents"], pack_mask(mask, factor)], axis=-1)
        condition = Condition(tokens, image_ids(token_grid(*mask.shape[1:3], factor)))
        noise_key, sigma_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, batch["latents"].shape)
        sigma = jax.nn.sigmoid(jax.random.normal(sigma_key, batch["prompt"].shape))
        losses = flow_matching_loss(
            editor, params["transformer"], batch["latents"], condition, embeds, sigma, noise
        )
        return jnp.mean(losses)

    def step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        key = stream(seed, "flow_matching", state.step)
        loss, gradients = jax.value_and_grad(loss_of)(state.params, batch, key)
        metrics = {"loss": mean_of(loss[None])}
        return apply_gradients(state, loss, gradients, optimizer, metrics, ema_decay)

    return jit_step(step, abstract, mesh)
