"""How the dimensions of a sample share its update: the mean of the paper, and alternatives.

With the mean over E_k (Algorithm 1), a dimension may fall while the others rise by more. `Balance`
chooses weights that follow the rewards, and can remove conflicts between gradients.

Shapes: b batch, e dimensions (padded), t tasks, n gradients.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Key, PyTree

from onereward_jax.common.rng import stream
from onereward_jax.tasks import DIMENSIONS, MAX_DIMENSIONS, TASKS, Dimension
from onereward_jax.training.metrics import Mean

WEIGHTS = ("mean", "worst", "floors", "spread")
PROJECTIONS = ("none", "dimensions", "tasks", "both")

LossesOf = Callable[[PyTree], tuple[Float32[Array, "b e"], Any]]
"""Images -> (pair losses, other results)."""

AT_PAR, FIRST_SPREAD = 0.5, 0.25
"""Mean and standard deviation of every reward before the first step: as good as the reference."""

LEAST_SPREAD = 0.02
"""Lower bound of a standard deviation: a judge that always says the same gets no huge weight."""


@dataclasses.dataclass(frozen=True)
class Balance:
    """The weights of the dimensions in a sample's loss. They carry no gradient and sum to 1.

    Attributes:
      weights: multiplied with `RLConfig.dimension_weights`. "mean": all 1, as in the paper.
        "worst": the softmax of the pair losses / `temperature`, the gradient of the smooth maximum,
        temperature · log mean exp(loss / temperature). "floors": 1 + `gain` · max(0, `floor` - m) /
        `floor`, where m is the running mean of the reward of this task and dimension. "spread": 1 /
        standard deviation of the reward of this task and dimension (running), so that a dimension
        with large differences does not drown the others.
      temperature: of "worst"; large values give the mean, small ones the maximum.
      floor: P("Yes") below which a dimension weighs more; 0.5 is as good as the reference.
      gain: weight added at a reward of 0.
      window: samples of a task over which its rewards are averaged (exponential).
      project: "dimensions": conflicts between the dimensions of a sample are removed from their
        gradients with respect to its image (`project_conflicts`). "tasks": those between the tasks
        of a batch, from the gradients of the weights (`task_gradients`). "both": first the one,
        then the other.

    Raises:
      ValueError: a field is out of range; names it as the config does.
    """

    weights: str = "mean"
    temperature: float = 0.1
    floor: float = AT_PAR
    gain: float = 10.0
    window: int = 64
    project: str = "none"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("balance", self.weights, WEIGHTS),
            ("project_conflicts", self.project, PROJECTIONS),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}: choose one of {', '.join(known)}")
        for name, value, low, high in (
            ("balance_temperature", self.temperature, 0.0, math.inf),
            ("floor", self.floor, 0.0, 1.0),
        ):
            if not low < value <= high:
                raise ValueError(f"{name} is {value}: expected above {low:g}, at most {high:g}")
        if self.gain < 0.0:
            raise ValueError(f"floor_gain is {self.gain}: expected at least 0")
        if self.window < 1:
            raise ValueError(f"balance_window is {self.window}: expected at least 1")

    @property
    def projects_dimensions(self) -> bool:
        """Whether conflicts between dimensions are removed."""
        return self.project in ("dimensions", "both")

    @property
    def projects_tasks(self) -> bool:
        """Whether conflicts between tasks are removed."""
        return self.project in ("tasks", "both")

    @property
    def follows_rewards(self) -> bool:
        """Whether the weights need the `RunningRewards` in the train state."""
        return self.weights in ("floors", "spread")


class RunningRewards(NamedTuple):
    """Running means of P("Yes") and of its square, per task and dimension.

    Averages of many samples: the P("Yes") of one sample is mostly noise of the prompt and the draw,
    and weights made of it would follow that noise. A step uses the table of the steps before, so
    its weights are independent of its own draws and equal in all microbatches.
    """

    mean: Float32[Array, "t e"]
    square: Float32[Array, "t e"]


def first_rewards() -> RunningRewards:
    """The table before the first step: the weights of a sample are equal."""
    shape = (len(TASKS), MAX_DIMENSIONS)
    square = AT_PAR**2 + FIRST_SPREAD**2
    return RunningRewards(*(jnp.full(shape, value, jnp.float32) for value in (AT_PAR, square)))


def follow_rewards(
    running: RunningRewards, rewards: Mean, squares: Mean, window: int
) -> RunningRewards:
    """The table after a step: m <- d^n m + (1 - d^n) mean, for n new samples, d = 1 - 1 / window.

    Counted in samples, not steps, so that rare tasks are averaged over as many. A cell without new
    samples (also in a refused step, whose metrics are zeroed) stays as it is, bit for bit.

    Args:
      running: the table before.
      rewards, squares: `metrics.by_task` of P("Yes") and of its square, over the whole batch.
      window: see `Balance`.
    """

    def followed(old: Float32[Array, "t e"], new: Mean) -> Float32[Array, "t e"]:
        kept = (1.0 - 1.0 / window) ** new.count
        found = kept * old + (1.0 - kept) * new.total / jnp.maximum(new.count, 1.0)
        return jnp.where(new.count > 0, found, old)

    return RunningRewards(followed(running.mean, rewards), followed(running.square, squares))


def table_weights(balance: Balance, running: RunningRewards) -> Float32[Array, "t e"]:
    """The weights "floors" or "spread" of every task and dimension, see `Balance`."""
    if balance.weights == "floors":
        missing = jax.nn.relu(balance.floor - running.mean) / balance.floor
        return 1.0 + balance.gain * missing
    variance = running.square - jnp.square(running.mean)
    return 1.0 / jnp.sqrt(jnp.maximum(variance, LEAST_SPREAD**2))


def mean_over_dimensions(
    losses: Float32[Array, "b e"],
    dimension_mask: Bool[Array, "b e"],
    weights: Float32[Array, "b e"] | None = None,
) -> Float32[Array, "b"]:
    """The mean over E_k, the dimensions of each sample's task.

    Args:
      losses: losses of the pairs.
      dimension_mask: False at padded dimensions.
      weights: weights of the mean; None for the unweighted mean of the paper. Weight 0 excludes a
        dimension.
    """
    kept = dimension_mask.astype(jnp.float32)
    if weights is not None:
        dimension_mask = dimension_mask & (weights > 0)
        losses, kept = weights * losses, weights * kept
    # `where`, not a product: a padded query can give infinity.
    total = jnp.sum(jnp.where(dimension_mask, losses, 0.0), axis=-1)
    count = jnp.sum(kept, axis=-1)
    return total / jnp.where(count > 0, count, 1.0)


def dimension_weights(
    weights: tuple[float, ...],
    task: Int[Array, "b"],
    balance: Balance = Balance(),
    running: RunningRewards | None = None,
) -> Float32[Array, "b e"] | None:
    """The weights of the dimensions of each sample's task, as far as they depend on the task only.

    Args:
      weights: `RLConfig.dimension_weights`, normalised to a maximum of 1 per task, so that equal
        weights do not change the result.
      task: index into `TASKS`.
      balance: see `Balance`.
      running: the table, if `balance.follows_rewards`.

    Returns:
      None if all are equal.
    """
    equal = len(set(weights)) == 1
    if equal and not balance.follows_rewards:
        return None
    of_dimension = dict(zip(Dimension, weights, strict=True))
    table = np.zeros((len(TASKS), MAX_DIMENSIONS), np.float32)
    for row, name in enumerate(TASKS):
        found = [1.0 if equal else of_dimension[dimension] for dimension in DIMENSIONS[name]]
        table[row, : len(found)] = np.divide(found, max(found))
    if balance.follows_rewards:
        return (table * table_weights(balance, running))[task]
    return jnp.asarray(table)[task]


def worst_first(
    losses: Float32[Array, "b e"],
    dimension_mask: Bool[Array, "b e"],
    weights: Float32[Array, "b e"] | None,
    temperature: float,
) -> Float32[Array, "b e"]:
    """`weights` times the softmax of the losses / temperature over the kept dimensions."""
    kept = dimension_mask if weights is None else dimension_mask & (weights > 0)
    logits = jnp.where(kept, losses / temperature, -jnp.inf)
    # Without a kept dimension: all 0, not NaN.
    largest = jnp.max(logits, axis=-1, keepdims=True, initial=jnp.finfo(jnp.float32).min)
    scores = jax.lax.stop_gradient(jnp.exp(logits - largest))
    return scores if weights is None else scores * weights


def balanced_loss(
    balance: Balance,
    losses_of: LossesOf,
    images: PyTree,
    dimension_mask: Bool[Array, "b e"],
    weights: Float32[Array, "b e"] | None,
    keys: Key[Array, "b"],
) -> tuple[Float32[Array, "b"], Any]:
    """The loss of each sample, a mean over its dimensions as `balance` says.

    With `balance.projects_dimensions`, the value is the same, but the gradient with respect to the
    images is the sum of the projected gradients of the dimensions. The backward pass of the judge
    runs once per dimension, that of all before the images (decoder, policy) once. With
    `balance.projects_tasks`, the judge's runs here, so that it is not repeated for each task.

    Args:
      balance: see `Balance`.
      losses_of: the pair losses of images, and results that are passed on.
      images: x_θ, an array [b, ...] or a pytree of them; differentiable.
      dimension_mask: False at padded dimensions.
      weights: from `dimension_weights`.
      keys: one per sample, for the order of the projections.

    Returns:
      The losses and the other results of `losses_of`.
    """

    def mean(losses: Float32[Array, "b e"]) -> Float32[Array, "b"]:
        chosen = weights
        if balance.weights == "worst":
            chosen = worst_first(losses, dimension_mask, weights, balance.temperature)
        return mean_over_dimensions(losses, dimension_mask, chosen)

    if balance.project == "none":
        losses, others = losses_of(images)
        return mean(losses), others

    losses, gradients, others = gradients_by_dimension(
        losses_of, images, mean, apart=balance.projects_dimensions
    )
    if balance.projects_dimensions:
        orders = projection_orders(keys, losses.shape[-1])
        shares = project_conflicts(inner_products(gradients), orders)
    else:
        shares = jnp.ones((losses.shape[0], 1))

    def zero(image: Array, gradient: Float32[Array, "n b ..."]) -> Float32[Array, "b"]:
        """0, with the wanted gradient."""
        wanted = jnp.einsum("bn,nb...->b...", shares, gradient, precision="highest")
        product = (image - jax.lax.stop_gradient(image)) * jax.lax.stop_gradient(wanted)
        return jnp.sum(product.reshape(product.shape[0], -1), axis=-1)

    zeros = jax.tree.leaves(jax.tree.map(zero, images, gradients))
    return jax.lax.stop_gradient(mean(losses)) + sum(zeros), others


def gradients_by_dimension(
    losses_of: LossesOf,
    images: PyTree,
    mean: Callable[[Float32[Array, "b e"]], Float32[Array, "b"]],
    *,
    apart: bool = True,
) -> tuple[Float32[Array, "b e"], PyTree, Any]:
    """Gradients of each dimension's part of the loss with respect to the images.

    Args:
      losses_of, images: as in `balanced_loss`; nothing here is differentiated again.
      mean: the mean over dimensions. The gradients add up to that of the mean.
      apart: whether each dimension gets its own; otherwise there is one, their sum.

    Returns:
      The pair losses, the gradients, [e, b, ...] or [1, b, ...] for each [b, ...], and the other
      results.
    """
    losses, pull_back, others = jax.vjp(losses_of, jax.lax.stop_gradient(images), has_aux=True)
    value, to_losses = jax.vjp(mean, losses)
    (shares,) = to_losses(jnp.ones_like(value))
    count = losses.shape[-1]
    kept = jnp.eye(count, dtype=bool) if apart else jnp.ones((1, count), bool)
    # A loop needs the memory of one backward pass. vmap over cotangents alone fails for cuDNN's
    # attention: its batching rule takes the residuals' batch for that of the cotangents.
    (gradients,) = jax.lax.map(pull_back, jnp.where(kept[:, None], shares, 0.0))
    return losses, gradients, others


def inner_products(gradients: PyTree) -> Float32[Array, "b n n"]:
    """Inner products of the gradients [n, b, ...] of each sample, over all leaves."""
    flat = [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(gradients)]
    return sum(jnp.einsum("ibx,jbx->bij", leaf, leaf, precision="highest") for leaf in flat)


def projection_orders(keys: Key[Array, "b"], count: int) -> Int[Array, "b n n"]:
    """For each sample and gradient, a random order of all gradients."""

    def order(key: Key[Array, ""]) -> Int[Array, "n n"]:
        drawn = jax.random.uniform(stream(key, "projection_order"), (count, count))
        return jnp.argsort(drawn, axis=-1)

    return jax.vmap(order)(keys)


def project_conflicts(
    products: Float32[Array, "*b n n"], orders: Int[Array, "*b n n"]
) -> Float32[Array, "*b n"]:
    """PCGrad (arXiv 2001.06782, Algorithm 1), written in inner products.

    For each gradient g_i and each other g_j in a random order: if g_i · g_j < 0, g_i loses its
    part along g_j, g_i <- g_i - (g_i · g_j) / ‖g_j‖² g_j. The result is the sum of all g_i. Every
    g_i stays a combination of the original gradients, so inner products suffice.

    Args:
      products: g_i · g_j of the original gradients.
      orders: row i is the order in which g_i meets the others; i itself is skipped.

    Returns:
      The coefficients of the original gradients in the result; all 1 without a conflict.
    """
    count = products.shape[-1]
    squares = jnp.diagonal(products, axis1=-2, axis2=-1)
    itself = jnp.arange(count)
    parts = jnp.broadcast_to(jnp.eye(count), products.shape)  # row i: g_i
    for turn in range(count):
        other = orders[..., turn]
        along = jnp.take_along_axis(products, other[..., None], axis=-2)
        product = jnp.sum(parts * along, axis=-1)
        square = jnp.take_along_axis(squares, other, axis=-1)
        conflict = (product < 0) & (other != itself) & (square > 0)
        excess = jnp.where(conflict, product / jnp.where(square > 0, square, 1.0), 0.0)
        parts = parts - excess[..., None] * jax.nn.one_hot(other, count)
    return jnp.sum(parts, axis=-2)
