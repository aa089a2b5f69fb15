"""A monitor: do the dimensions of a sample, and the tasks of a batch, pull in different directions?

Cosines of gradients of Eq. 5. Those of dimensions are taken at the image x_θ, per sample; those of
tasks at the weights of the policy. Negative: a small step that helps one harms the other.

Shapes: b batch, t tasks, e dimensions (padded).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, PRNGKeyArray, PyTree

from onereward_jax.parallel import MeshFunction, check_microbatches, mesh_jit, replicated
from onereward_jax.tasks import DIMENSIONS, TASKS
from onereward_jax.training.gradient_accumulation import sum_over_microbatches
from onereward_jax.training.metrics import Mean
from onereward_jax.training.rl_balance import (
    dimension_weights,
    gradients_by_dimension,
    inner_products,
    mean_over_dimensions,
)
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_loss import (
    Answers,
    constant_where_blocked,
    judge_pairs,
    predict_image,
)
from onereward_jax.training.rl_rollout import Batch, Draws, draw, draw_index, roll_out
from onereward_jax.training.rl_step import abstract_rl_state
from onereward_jax.training.rl_weights import check_frozen, policy_weights, rollout_weights
from onereward_jax.training.rollout_int8 import Rounded, make_round_weights
from onereward_jax.training.task_gradients import gradients_by_task, task_products
from onereward_jax.training.train_state import TrainState


class Conflicts(NamedTuple):
    """Cosines between gradients; a count of 0 where a gradient is 0 or was not measured.

    Attributes:
      dimensions: mean over the samples of a task, at the image.
      tasks: of the tasks' mean losses, at the trained weights.
    """

    dimensions: Mean
    tasks: Mean


def make_conflicts(models: RLModels, config: RLConfig, mesh: Mesh) -> MeshFunction:
    """The jitted function (state, frozen, batch, key) -> `Conflicts`. Inputs are not donated.

    Of the losses of the pairs alone (no anchors) with the weights of the paper's mean. Holds one
    gradient of the policy per task, spread over the mesh as the weights are.

    Raises (when first called):
      ValueError: as the step.
    """
    weights = abstract_rl_state(models, config, mesh).params
    round_weights = make_round_weights(models, config, mesh)

    def conflicts(state: TrainState, frozen: Frozen, batch: Batch, key: PRNGKeyArray) -> Conflicts:
        check_frozen(config, frozen)
        check_microbatches(batch["image"].shape[0], config.microbatches, mesh)
        draws = draw(models, key, state.step, batch["image"])
        index, rounded = draw_index(config, key, state.step), round_weights(state, frozen)
        dimensions, gradients = sum_over_microbatches(
            lambda part: _gradients(models, config, state, frozen, rounded, *part, index, weights),
            (batch, draws),
            config.microbatches,
        )
        return Conflicts(dimensions, _cosines(task_products(gradients)))

    return mesh_jit(conflicts, mesh, out_shardings=replicated(mesh))


def _gradients(
    models: RLModels,
    config: RLConfig,
    state: TrainState,
    frozen: Frozen,
    rounded: Rounded | None,
    batch: Batch,
    draws: Draws,
    index: Int32[Array, "*k"],
    weights: PyTree,
) -> tuple[Mean, PyTree]:
    """Sums over these samples: cosines of dimensions [t, e, e]; gradients [t, ...] of the tasks.

    The judge's backward pass runs once per dimension, that of decoder and policy once per task.
    """
    rolled = rollout_weights(models, config, state, frozen, rounded)
    rollout = roll_out(models, config, *rolled, frozen.vae, batch, draws, index)

    def image_of(params: PyTree) -> Float32[Array, "b h w 3"]:
        policy = policy_weights(models, config, params, frozen)
        return predict_image(models, config, policy, frozen.vae, batch, rollout)

    def losses_of(image: Float32[Array, "b h w 3"]) -> tuple[Float32[Array, "b e"], Answers]:
        image = constant_where_blocked(models, config, batch, image)
        answers, _ = judge_pairs(models, config, frozen.judge, image, batch, draws, rollout)
        return config.algorithm.loss(*answers, config.reward_upper_bound), answers

    def mean(losses: Float32[Array, "b e"]) -> Float32[Array, "b"]:
        chosen = dimension_weights(config.dimension_weights, batch["task"])
        return mean_over_dimensions(losses, batch["dimension_mask"], chosen)

    image, to_params = jax.vjp(image_of, state.params)
    _, by_dimension, _ = gradients_by_dimension(losses_of, image, mean)
    cosines = _cosines(inner_products(by_dimension))
    members = jax.nn.one_hot(batch["task"], len(TASKS), dtype=jnp.float32)

    def by_task(values: Float32[Array, "b e e"]) -> Float32[Array, "t e e"]:
        return jnp.einsum("bt,bij->tij", members, values, precision="highest")

    whole = jnp.sum(by_dimension, axis=0)

    def pull_back(ones: Float32[Array, "b"]) -> PyTree:
        (gradient,) = to_params(jnp.where(ones[:, None, None, None] > 0, whole, 0.0))
        return gradient

    gradients = gradients_by_task(pull_back, batch["task"], weights)
    return Mean(by_task(cosines.total), by_task(cosines.count)), gradients


def _cosines(products: Float32[Array, "*b n n"]) -> Mean:
    """Cosines from inner products, with count 0 where a gradient is 0."""
    squares = jnp.diagonal(products, axis1=-2, axis2=-1)
    norms = jnp.sqrt(squares[..., :, None]) * jnp.sqrt(squares[..., None, :])
    known = norms > 0
    cosines = jnp.where(known, products / jnp.where(known, norms, 1.0), 0.0)
    return Mean(cosines, known.astype(jnp.float32))


def conflict_scalars(conflicts: Conflicts) -> dict[str, float]:
    """Cosines by name in metrics.jsonl, on the host; those that were not measured are omitted."""
    tables = jax.device_get(conflicts)
    found = {}
    for name, (field, place, _, _) in _pairs().items():
        total, count = (np.asarray(table)[place] for table in getattr(tables, field))
        if count > 0:
            found[name] = float(total / count)
    return found


def conflict_titles() -> dict[str, tuple[str, str]]:
    """Name in metrics.jsonl -> (task or "tasks", the pair), in words."""
    return {name: (title, pair) for name, (_, _, title, pair) in _pairs().items()}


def _pairs() -> dict[str, tuple[str, tuple[int, ...], str, str]]:
    """Name -> field of `Conflicts`, place in its table, title, pair; each pair once."""
    names: dict[str, tuple[str, tuple[int, ...], str, str]] = {}
    for row, task in enumerate(TASKS):
        for (one, first), (two, second) in itertools.combinations(enumerate(DIMENSIONS[task]), 2):
            names[f"cosine_of_dimensions/{task.value}/{first.value}/{second.value}"] = (
                "dimensions",
                (row, one, two),
                task.title,
                f"{first.title}, {second.title}",
            )
    for (one, first), (two, second) in itertools.combinations(enumerate(TASKS), 2):
        names[f"cosine_of_tasks/{first.value}/{second.value}"] = (
            "tasks",
            (one, two),
            "tasks",
            f"{first.title}, {second.title}",
        )
    return names
