"""The judge's loss on preference pairs: both orders of every pair, Eq. 3.

    L(φ) = -½ E[log P_φ("Yes" | x_w, x_l, q) + log P_φ("No" | x_l, x_w, q)]

Single letters: b pairs, h, w image height and width, lp, ls query lengths.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, PyTree

from onereward_jax.reward import QueryBatch, Scorer
from onereward_jax.tasks import MAX_DIMENSIONS
from onereward_jax.training.metrics import Mean, Metrics, by_task

Pairs = dict[str, Array]
"""winner, loser [b,h,w,3] in [-1,1]; task [b], an index into `tasks.TASKS`; dimension [b], an index
into `tasks.DIMENSIONS` of that task; query_prefix [b,lp], query_suffix and query_suffix_mask
[b,1,ls]; index [b]."""


class PairAnswers(NamedTuple):
    """Log-probabilities for both orders of each pair.

    Attributes:
      yes, no: log P("Yes") and log P("No"); column 0: winner first, column 1: loser first.
    """

    yes: Float32[Array, "b 2"]
    no: Float32[Array, "b 2"]


def answer_both_orders(
    scorer: Scorer, params: PyTree, pairs: Pairs
) -> tuple[PairAnswers, Float32[Array, "b"]]:
    """Scores (winner, loser) and (loser, winner).

    Returns:
      The answers, and the mean log-likelihood of the question's tokens over both orders.
    """
    queries = QueryBatch(pairs["query_prefix"], pairs["query_suffix"], pairs["query_suffix_mask"])
    yes, no, words = scorer.score_both_orders_and_words(
        params, pairs["winner"], pairs["loser"], queries
    )
    return PairAnswers(yes[..., 0], no[..., 0]), jnp.mean(words, axis=1)


def preference_loss(answers: PairAnswers) -> Float32[Array, "b"]:
    """Eq. 3 for each pair."""
    return -0.5 * (answers.yes[:, 0] + answers.no[:, 1])


def preference_metrics(answers: PairAnswers, pairs: Pairs) -> Metrics:
    """Metrics of the judge, as tables of task x dimension.

    Returns:
      accuracy: fraction of pairs in which it prefers the winner, using both orders.
      single_order_accuracy: fraction of correct answers in a single order.
      position_bias: mean P("Yes") over both orders minus ½; above 0, it favours the first image.
    """
    preference = jax.nn.sigmoid(answers.yes - answers.no)
    winner_first, loser_first = preference[:, 0], preference[:, 1]
    right = jnp.stack([winner_first > 0.5, loser_first < 0.5], axis=1)
    asked = jax.nn.one_hot(pairs["dimension"], MAX_DIMENSIONS, dtype=jnp.bool_)

    def table(values: Float[Array, "b"]) -> Mean:
        spread = jnp.broadcast_to(values[:, None], asked.shape)
        return by_task(spread, pairs["task"], asked)

    return {
        "accuracy": table((winner_first > loser_first).astype(jnp.float32)),
        "single_order_accuracy": table(jnp.mean(right.astype(jnp.float32), axis=1)),
        "position_bias": table((winner_first + loser_first) / 2.0 - 0.5),
    }
