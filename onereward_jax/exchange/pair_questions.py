"""Pairs as questions to a vision-language judge: two images, "Yes" or "No".

The wording is that of the package's query template (Fig. 5 of the paper). Besides the question, a
row has fields that tell what it was made from, under their own names, so that it can be read back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onereward_jax.annotation.comparisons import Judgement, number, text
from onereward_jax.annotation.given_comparisons import Given
from onereward_jax.annotation.given_pictures import GivenPicture
from onereward_jax.data.example import RowError
from onereward_jax.exchange.options import Options
from onereward_jax.exchange.pairs import Pair, dimension_of, split_of, task_of
from onereward_jax.reward.query_template import packaged_template
from onereward_jax.tasks import FIXED_PROMPTS

ORIGIN_FIELDS = {
    "comparison": str,
    "task": str,
    "edit_prompt": str,
    "dimension": str,
    "annotator": str,
    "split": str,
    "source": str,
    "probability": float,
    "answered_at": float,
    "seconds": float,
}
"""Fields of what a pair was made from."""

_END = "<|im_end|>"


def question(pair: Pair) -> str:
    """The question about a pair's two images, without the markup of a chat."""
    template, comparison = packaged_template(), pair.comparison
    asked = template.suffix_text(pair.answer.dimension, comparison.prompt)
    return (template.task_text(comparison.task) + asked).partition(_END)[0]


def answers(pair: Pair) -> tuple[str, str]:
    """The right and the wrong answer."""
    yes, no = packaged_template().answers
    return (yes, no) if pair.first_is_better else (no, yes)


def origin_of(pair: Pair) -> dict[str, str | float]:
    """`ORIGIN_FIELDS` of a pair."""
    comparison, answer = pair.comparison, pair.answer
    return {
        "comparison": comparison.id,
        "task": comparison.task.value,
        "edit_prompt": comparison.prompt,
        "dimension": answer.dimension.value,
        "annotator": answer.annotator,
        "split": comparison.split or "",
        "source": comparison.source,
        "probability": answer.probability,
        "answered_at": answer.answered_at,
        "seconds": answer.seconds,
    }


def given_pair(
    origin: Mapping[str, Any],
    pictures: tuple[GivenPicture, GivenPicture],
    first_is_better: bool,
    options: Options,
    annotator: str,
) -> Given:
    """The comparison of a pair.

    Args:
      origin: `ORIGIN_FIELDS`, as far as the row has them; for the others `options` count.
      pictures, first_is_better: the pair.
      options: options of the command.
      annotator: annotator of rows that state none.

    Raises:
      RowError: naming the field.
    """
    prompt = text("edit_prompt", origin.get("edit_prompt") or "", empty=True)
    task = task_of(origin.get("task"), prompt, options)
    if not prompt and task not in FIXED_PROMPTS:
        raise RowError(f"edit_prompt is missing; the task {task.value} needs a prompt")
    best, worst = (0, 1) if first_is_better else (1, 0)
    return Given(
        task=task,
        prompt=prompt or FIXED_PROMPTS[task],
        split=split_of(origin.get("split") or None, options),
        source=text("source", origin.get("source") or "", empty=True),
        candidates=pictures,
        answers=(
            Judgement(
                dimension_of(origin.get("dimension"), task, options),
                best,
                worst,
                text("annotator", origin.get("annotator") or options.annotator or annotator),
                number("probability", _or(origin.get("probability"), 1.0)),
                number("answered_at", _or(origin.get("answered_at"), 0.0)),
                number("seconds", _or(origin.get("seconds"), 0.0)),
            ),
        ),
    )


def chosen_first(chosen: str, rejected: str) -> bool:
    """Whether the chosen answer says that the first image is better; raises RowError."""
    yes, no = packaged_template().answers
    found = (chosen.strip(), rejected.strip())
    if found not in ((yes, no), (no, yes)):
        raise RowError(f"chosen and rejected must be {yes!r} and {no!r}, found {found}")
    return found[0] == yes


def _or(value: Any, default: float) -> Any:
    return default if value is None else value
