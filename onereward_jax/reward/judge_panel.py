"""Several judges, and both orders of a pair, as one reward.

A single judge asked in a single order, as in the paper, has blind spots: it prefers the first
picture a little, and it errs where its few labels did not reach. A policy trained long enough finds
them. `JudgePanel` asks every judge, and if wanted in both orders, and has the interface of a single
`Scorer`.

Both orders are averaged as probabilities, P = ½ (P("Yes" | a, b) + P("No" | b, a)), because Eq. 5
compares a probability with λ: so both orders have the same weight in the gradient, and a constant
preference for the first picture cancels. A mean of logarithms would follow the less certain order.

The judges are combined as probabilities too. With P_i of judge i:

    "mean"    1/n Σ P_i
    "least"   min_i P_i, worst-case optimisation
    "spread"  1/n Σ P_i - k σ, σ their standard deviation (of the population)

"mean" and "least" are those of Coste et al., "Reward Model Ensembles Help Mitigate
Overoptimization" (arXiv 2310.02743), section 3.3; "spread" is their uncertainty-weighted
optimisation, with the standard deviation instead of the variance, so that k has no unit.

Single letters: n judges, b batch, e dimensions, h, w image height and width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, PyTree

from onereward_jax.models.qwen2_5_vl import Qwen2_5_VL
from onereward_jax.reward.image_preprocess import ImageProcessor
from onereward_jax.reward.judge_view import JudgeView
from onereward_jax.reward.query import QueryBatch, QueryLayout
from onereward_jax.reward.scorer import Answers, Scorer

ORDERS = ("one", "both")
"""Values of `JudgePanel.orders`: (policy, reference) alone as in the paper, or both."""

ENSEMBLES = ("mean", "least", "spread")
"""Values of `JudgePanel.ensemble`."""

LEAST = 1e-6
"""Smallest probability of `JudgePanel.score`; the logarithm of 0 has no gradient."""


@dataclasses.dataclass(frozen=True)
class JudgePanel:
    """`judges` judges of one architecture, without their parameters; static.

    Attributes:
      scorer: one of them.
      judges: their number; with more than one, every leaf of the parameters has a leading axis [n].
      orders: one of `ORDERS`.
      ensemble: one of `ENSEMBLES`.
      spread: k of "spread".
    """

    scorer: Scorer
    judges: int = 1
    orders: str = "one"
    ensemble: str = "mean"
    spread: float = 1.0

    @property
    def layout(self) -> QueryLayout:
        """Static sizes of the queries."""
        return self.scorer.layout

    @property
    def view(self) -> JudgeView:
        """What every judge sees of the images."""
        return self.scorer.view

    @property
    def model(self) -> Qwen2_5_VL:
        """The model of every judge."""
        return self.scorer.model

    @property
    def processor(self) -> ImageProcessor:
        """The image preprocessing of every judge."""
        return self.scorer.processor

    def score(
        self,
        params: PyTree,
        images_a: Float[Array, "b h w 3"],
        images_b: Float[Array, "b h w 3"],
        queries: QueryBatch,
    ) -> Answers:
        """(log P("Yes"), log P("No")) of the panel to "is image a better than image b?".

        The judges are asked one after the other, by a scan. So the program has the size of a single
        judge's, and its activations are those of one judge: unless the model has remat "none", the
        backward pass asks each judge again.

        Args and raises: as `Scorer.score`. P("No") is the panel's for "b is better": it is combined
        like P("Yes"), but with "spread" raised by k σ.
        """

        def ask(judge: PyTree) -> Answers:
            if self.orders == "one":
                return self.scorer.score(judge, images_a, images_b, queries)
            return both_orders(*self.scorer.score_both_orders(judge, images_a, images_b, queries))

        if self.judges == 1:
            return ask(params)
        if self.scorer.model.remat != "none":
            ask = jax.checkpoint(ask, prevent_cse=False)
        answers = jax.lax.scan(lambda _, judge: (None, ask(judge)), None, params)[1]
        return combined(*answers, self.ensemble, self.spread)


def panel_of(
    scorer: Scorer, *, judges: int, orders: str, ensemble: str, spread: float
) -> Scorer | JudgePanel:
    """A panel; the scorer itself for a single judge asked in one order, as in the paper."""
    if judges == 1 and orders == "one":
        return scorer
    return JudgePanel(scorer, judges, orders, ensemble, spread)


def both_orders(yes: Float[Array, "b 2 e"], no: Float[Array, "b 2 e"]) -> Answers:
    """The mean over both orders, as probabilities, of `Scorer.score_both_orders`."""
    yes, no = jnp.exp(yes), jnp.exp(no)
    return _log((yes[:, 0] + no[:, 1]) / 2.0), _log((no[:, 0] + yes[:, 1]) / 2.0)


def combined(
    yes: Float[Array, "n b e"], no: Float[Array, "n b e"], ensemble: str, spread: float
) -> Answers:
    """The answers of n judges as one; see the module.

    Args:
      yes, no: log P("Yes") and log P("No") of each judge.
      ensemble: one of `ENSEMBLES`.
      spread: k of "spread".
    """
    yes, no = jnp.exp(yes), jnp.exp(no)
    if ensemble == "least":
        strictest = jnp.argmin(yes, axis=0)[None]
        least, most = (jnp.take_along_axis(one, strictest, axis=0)[0] for one in (yes, no))
        return _log(least), _log(most)
    least, most = jnp.mean(yes, axis=0), jnp.mean(no, axis=0)
    if ensemble == "spread":
        least, most = least - spread * _deviation(yes), most + spread * _deviation(no)
    return _log(least), _log(most)


def _deviation(values: Float32[Array, "n b e"]) -> Float32[Array, "b e"]:
    """The standard deviation over judges; 0, with gradient 0, where it is only rounding."""
    variance = jnp.var(values, axis=0)
    apart = variance > 1e-12
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, variance, 1.0)), 0.0)


def _log(probability: Any) -> Float32[Array, "b e"]:
    """Its logarithm, limited to [LEAST, 1]; exp of it has the gradient of the probability itself.

    Otherwise pairs about which the judges disagree most, with mean - k σ below 0, would not train.
    """
    limited = jnp.clip(probability, LEAST, 1.0)
    return jnp.log(probability + jax.lax.stop_gradient(limited - probability))
