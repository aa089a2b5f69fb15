"""Batches of preference pairs with their triplets, for methods that learn from stored answers.

The pictures are the candidates that people compared. They were made with other settings than those
of inference: numbers of steps, guidance, negative prompts, initial noise of a strength below 1
(which keeps some of the source), and perhaps a transform of finished pictures. So a method that
imitates them learns these settings too: it gets more likely to give what the better of two such
pictures looks like, not what the editor gives at its best. Methods that compare both pictures
(`dpo`) learn from the difference, in which settings that both share cancel; supervised training
on winners (`winners`) learns all of it.

Single letters: b pairs, h, w image height and width, n latent tokens, e dimensions.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from onereward_jax.policy import FillPolicy
from onereward_jax.policy.latent_packing import pack_mask
from onereward_jax.tasks import MAX_DIMENSIONS
from onereward_jax.training.methods.loss_area import token_weights
from onereward_jax.training.metrics import Mean, by_task
from onereward_jax.training.rl_balance import dimension_weights
from onereward_jax.training.rl_config import RLConfig

PairBatch = dict[str, Array]
"""The fields of `rl_rollout.Batch` without targets and queries, of the triplet of each pair, and
winner, loser [b,h,w,3] in [-1,1]; label [b] in (0.5, 1], the probability that the winner is better;
dimension [b], an index into `tasks.DIMENSIONS` of the task. `index` is that of the pair."""


def area_weights(
    editor: FillPolicy, mask: Float[Array, "b h w 1"], area: str
) -> Float32[Array, "b n"]:
    """Weights of the latent tokens in the mean of an error; they sum to 1.

    Args:
      editor: knows the tokens.
      mask: 1 = edited.
      area: "mask" or "whole", see `token_weights`.
    """
    return token_weights(pack_mask(mask, editor.vae.config.scale_factor), area)


def pair_weights(config: RLConfig, batch: PairBatch) -> Float32[Array, "b"]:
    """`RLConfig.dimension_weights` of the pairs' dimensions, at most 1; all 1 if they are equal."""
    table = dimension_weights(config.dimension_weights, batch["task"])
    if table is None:
        return jnp.ones(batch["task"].shape, jnp.float32)
    return jnp.take_along_axis(table, batch["dimension"][:, None], axis=1)[:, 0]


def by_dimension(values: Float[Array, "b"], batch: PairBatch) -> Mean:
    """Means of one value per pair, by task and dimension."""
    asked = jnp.arange(MAX_DIMENSIONS) == batch["dimension"][:, None]
    return by_task(jnp.broadcast_to(values[:, None], asked.shape), batch["task"], asked)
