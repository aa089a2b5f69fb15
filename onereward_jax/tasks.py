"""The vocabulary of OneReward: tasks s_k, evaluation dimensions E_k, sampling probabilities p_k.

Section 3 of the paper (arXiv 2508.21066). Everything that names a task or a dimension, in data,
queries, metrics or reports, takes the name from here.
"""

from __future__ import annotations

import enum


class Task(enum.StrEnum):
    """A mask-guided editing task s_k. The value is the name stored in data sets and metrics."""

    FILL = "fill"
    EXTEND_WITH_PROMPT = "extend_with_prompt"
    EXTEND_WITHOUT_PROMPT = "extend_without_prompt"
    REMOVAL = "removal"

    @property
    def title(self) -> str:
        """The name as people read it, in queries, tables and plots."""
        return _TITLES[self]


class Dimension(enum.StrEnum):
    """An evaluation dimension e: one aspect in which two edits of the same input are compared."""

    STRUCTURE = "structure"
    CONSISTENCY = "consistency"
    TEXT_ALIGNMENT = "text_alignment"
    AESTHETICS = "aesthetics"
    REMOVAL_QUALITY = "removal_quality"

    @property
    def title(self) -> str:
        """The name as people read it, in queries, tables and plots."""
        return self.value.replace("_", " ")


_TITLES = {
    Task.FILL: "image fill",
    Task.EXTEND_WITH_PROMPT: "image extend with prompt",
    Task.EXTEND_WITHOUT_PROMPT: "image extend without prompt",
    Task.REMOVAL: "object removal",
}

TASKS: tuple[Task, ...] = tuple(Task)
"""All tasks; a task's index in arrays is its position here."""

DIMENSIONS: dict[Task, tuple[Dimension, ...]] = {
    Task.FILL: (
        Dimension.STRUCTURE,
        Dimension.CONSISTENCY,
        Dimension.TEXT_ALIGNMENT,
        Dimension.AESTHETICS,
    ),
    Task.EXTEND_WITH_PROMPT: (
        Dimension.STRUCTURE,
        Dimension.CONSISTENCY,
        Dimension.TEXT_ALIGNMENT,
        Dimension.AESTHETICS,
    ),
    Task.EXTEND_WITHOUT_PROMPT: (
        Dimension.STRUCTURE,
        Dimension.CONSISTENCY,
        Dimension.AESTHETICS,
    ),
    Task.REMOVAL: (Dimension.REMOVAL_QUALITY,),
}
"""E_k: the dimensions in which results of each task are judged, in the order used by arrays."""

MAX_DIMENSIONS = max(len(dimensions) for dimensions in DIMENSIONS.values())
"""Size of the dimension axis of batched queries; shorter E_k are padded and masked."""

QUOTES_PROMPT: tuple[tuple[bool, ...], ...] = tuple(
    tuple(
        column < len(dimensions) and dimensions[column] is Dimension.TEXT_ALIGNMENT
        for column in range(MAX_DIMENSIONS)
    )
    for dimensions in DIMENSIONS.values()
)
"""Task x dimension, as in arrays: whether the question quotes the prompt."""

SAMPLING_PROBABILITIES: dict[Task, float] = {
    Task.FILL: 0.5,
    Task.EXTEND_WITH_PROMPT: 0.125,
    Task.EXTEND_WITHOUT_PROMPT: 0.125,
    Task.REMOVAL: 0.25,
}
"""p_k of Algorithm 1; the two extend variants share 0.25."""

COMMAND_TASKS = ("fill", "extend", "remove")
"""The tasks as a command line names them; whether an extension has a prompt, it sees."""


def task_named(name: str, prompt: str = "") -> Task:
    """The task that people call `name`: one of `COMMAND_TASKS`, or the value of a `Task`.

    Args:
      name: e.g. "extend".
      prompt: what to draw; "" for none.

    Raises:
      ValueError: there is no such task.
    """
    by_command = {
        "extend": Task.EXTEND_WITH_PROMPT if prompt else Task.EXTEND_WITHOUT_PROMPT,
        "remove": Task.REMOVAL,
    }
    if name in by_command:
        return by_command[name]
    try:
        return Task(name)
    except ValueError:
        known = dict.fromkeys([*COMMAND_TASKS, *TASKS])
        raise ValueError(f"unknown task {name!r}; there are {', '.join(known)}") from None


FIXED_PROMPTS: dict[Task, str] = {
    Task.EXTEND_WITHOUT_PROMPT: "high-definition, perfect composition",
    Task.REMOVAL: "remove",
}
"""Prompts of the tasks for which the user writes none, as in the authors' released demo."""

NEGATIVE_PROMPTS: tuple[str, ...] = ("", "nsfw", "blurry", "low quality")
"""Negative prompts drawn for preference candidates; "" stands for none (Section 3, stage 1)."""
