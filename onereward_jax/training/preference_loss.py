"""The judge's loss on labelled pairs: both orders of every pair, Eq. 3.

    L(φ) = -½ E[log P_φ("Yes" | x_w, x_l, q) + log P_φ("No" | x_l, x_w, q)]

The label y of a pair (a, b) is the probability that a is better. Eq. 3 is y = 1 of

    L(φ) = -½ E[y (log P("Yes" | a, b) + log P("No" | b, a))
                + (1 - y) (log P("No" | a, b) + log P("Yes" | b, a))]

Single letters: b pairs, h, w image height and width, lp, ls query lengths.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, PyTree

from onereward_jax.reward import Scorer, queries_in
from onereward_jax.tasks import MAX_DIMENSIONS
from onereward_jax.training.metrics import Mean, Metrics, by_task

Pairs = dict[str, Array]
"""first, second [b,h,w,3] in [-1,1]; label [b] in [0,1]; task [b], an index into `tasks.TASKS`;
dimension [b], an index into `tasks.DIMENSIONS` of that task; query_prefix [b,lp], query_suffix and
query_suffix_mask [b,1,ls], query_box [b,4] if the judge sees a crop, query_source [b,h,w,3] and
query_mask [b,h,w,1] if it sees the source; index [b]."""


class PairAnswers(NamedTuple):
    """Log-probabilities for both orders of each pair.

    Attributes:
      yes, no: log P("Yes") and log P("No"); column 0: (first, second),
        column 1: (second, first).
    """

    yes: Float32[Array, "b 2"]
    no: Float32[Array, "b 2"]


def answer_both_orders(
    scorer: Scorer, params: PyTree, pairs: Pairs
) -> tuple[PairAnswers, Float32[Array, "b"]]:
    """Scores (first, second) and (second, first).

    Returns:
      The answers, and the mean log-likelihood of the question's tokens over both orders.
    """
    yes, no, words = scorer.score_both_orders_and_words(
        params, pairs["first"], pairs["second"], queries_in(pairs)
    )
    return PairAnswers(yes[..., 0], no[..., 0]), jnp.mean(words, axis=1)


def preference_loss(answers: PairAnswers, label: Float[Array, "b"]) -> Float32[Array, "b"]:
    """Eq. 3 for each pair, with labels in [0, 1]."""
    first_better = answers.yes[:, 0] + answers.no[:, 1]
    second_better = answers.no[:, 0] + answers.yes[:, 1]
    return -0.5 * (label * first_better + (1.0 - label) * second_better)


def smoothed_label(label: Float[Array, "b"], smoothing: float) -> Float32[Array, "b"]:
    """(1 - s) y + s / 2 for the smoothing s in [0, 1): no answer is quite certain.

    Label smoothing (Szegedy et al., arXiv 1512.00567, section 7) with two classes. The least loss
    of a decided pair is then at P = 1 - s / 2 instead of 1. Conservative DPO smooths preferences in
    the same way, for labels of which a share s / 2 is wrong (Mitchell, 2023).
    """
    return (1.0 - smoothing) * label + smoothing / 2.0


def preference_metrics(answers: PairAnswers, pairs: Pairs) -> Metrics:
    """Metrics of the judge, as tables of task x dimension.

    Returns:
      accuracy: fraction of decided pairs (label not 0.5) in which it prefers what the label
        prefers, using both orders.
      single_order_accuracy: fraction of correct answers to decided pairs in a single order.
      position_bias: mean P("Yes") over both orders minus ½; above 0, it favours the first image.
    """
    preference = jax.nn.sigmoid(answers.yes - answers.no)
    first, second = preference[:, 0], preference[:, 1]  # P("Yes") with this picture first
    wanted = jnp.sign(pairs["label"] - 0.5)
    right = jnp.stack([jnp.sign(first - 0.5), jnp.sign(0.5 - second)], axis=1) == wanted[:, None]
    asked = jax.nn.one_hot(pairs["dimension"], MAX_DIMENSIONS, dtype=jnp.bool_)
    decided = asked & (wanted != 0)[:, None]

    def table(values: Float[Array, "b"], mask: Bool[Array, "b e"]) -> Mean:
        spread = jnp.broadcast_to(values[:, None], mask.shape)
        return by_task(spread, pairs["task"], mask)

    return {
        "accuracy": table((jnp.sign(first - second) == wanted).astype(jnp.float32), decided),
        "single_order_accuracy": table(jnp.mean(right.astype(jnp.float32), axis=1), decided),
        "position_bias": table((first + second) / 2.0 - 0.5, asked),
    }
