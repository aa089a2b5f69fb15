"""Tasks s_k, evaluation dimensions E_k and sampling probabilities p_k of OneReward.

Section 3 of the paper (arXiv 2508.21066). Data, queries, metrics and reports all take the names of
tasks and dimensions from here. A file of your own adds tasks (`task_file`).
"""

from __future__ import annotations

import enum
import re

from onereward_jax.task_file import named_task_file

OWN = named_task_file(
    ("fill", "extend", "extend_with_prompt", "extend_without_prompt", "remove", "removal"),
    ("structure", "consistency", "text_alignment", "aesthetics", "removal_quality"),
)
"""Tasks and dimensions beside the paper's, those of the file that ONEREWARD_TASKS names."""


class Task(enum.StrEnum):
    """A mask-guided editing task s_k. The value is the name stored in data sets and metrics."""

    FILL = "fill"
    EXTEND_WITH_PROMPT = "extend_with_prompt"
    EXTEND_WITHOUT_PROMPT = "extend_without_prompt"
    REMOVAL = "removal"
    vars().update({name.upper(): name for name in OWN.tasks})

    @property
    def title(self) -> str:
        """Readable name for queries, tables and plots."""
        return _TITLES[self]


class Dimension(enum.StrEnum):
    """An evaluation dimension e: one aspect by which two edits of the same input are compared."""

    STRUCTURE = "structure"
    CONSISTENCY = "consistency"
    TEXT_ALIGNMENT = "text_alignment"
    AESTHETICS = "aesthetics"
    REMOVAL_QUALITY = "removal_quality"
    vars().update({name.upper(): name for name in OWN.dimensions})

    @property
    def title(self) -> str:
        """Readable name for queries, tables and plots."""
        return self.value.replace("_", " ")


_TITLES = {
    Task.FILL: "image fill",
    Task.EXTEND_WITH_PROMPT: "image extend with prompt",
    Task.EXTEND_WITHOUT_PROMPT: "image extend without prompt",
    Task.REMOVAL: "object removal",
    **{Task(name): task.title for name, task in OWN.tasks.items()},
}

TASKS: tuple[Task, ...] = tuple(Task)
"""All tasks; a task's index in arrays is its position here."""

PAPER_TASKS: tuple[Task, ...] = tuple(task for task in TASKS if task not in OWN.tasks)
"""Those of the paper."""

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
    **{Task(name): tuple(map(Dimension, task.dimensions)) for name, task in OWN.tasks.items()},
}
"""E_k: the dimensions of each task, in the order used by arrays."""

MAX_DIMENSIONS = max(len(dimensions) for dimensions in DIMENSIONS.values())
"""Size of the dimension axis of batched queries; shorter E_k are padded and masked."""

QUOTES_PROMPT: tuple[tuple[bool, ...], ...] = tuple(
    tuple(
        column < len(dimensions) and dimensions[column] is Dimension.TEXT_ALIGNMENT
        for column in range(MAX_DIMENSIONS)
    )
    for dimensions in DIMENSIONS.values()
)
"""[task, dimension], indexed as in arrays: whether the query contains the prompt."""

SAMPLING_PROBABILITIES: dict[Task, float] = {
    Task.FILL: 0.5,
    Task.EXTEND_WITH_PROMPT: 0.125,
    Task.EXTEND_WITHOUT_PROMPT: 0.125,
    Task.REMOVAL: 0.25,
}
"""p_k of Algorithm 1, for the tasks of the paper; the two extend variants share 0.25."""

COMMAND_TASKS = ("fill", "extend", "remove", *OWN.tasks)
"""Task names on the command line; "extend" means with or without prompt, see `task_named`."""


def task_named(name: str, prompt: str = "") -> Task:
    """The task with a name: one of `COMMAND_TASKS`, or the value or the title of a `Task`.

    Upper case counts as lower case, and "-" and spaces as "_".

    Args:
      name: e.g. "extend" or "Extend without prompt".
      prompt: the user's prompt; "" for none.

    Raises:
      ValueError: there is no such task.
    """
    by_command = {
        "extend": Task.EXTEND_WITH_PROMPT if prompt else Task.EXTEND_WITHOUT_PROMPT,
        "remove": Task.REMOVAL,
    }
    titles = {plain_name(task.title): task for task in TASKS}
    known = titles | {plain_name(task): task for task in TASKS} | by_command
    if plain_name(name) not in known:
        names = ", ".join(dict.fromkeys([*COMMAND_TASKS, *TASKS]))
        raise ValueError(f"unknown task {name!r}; there are {names}")
    return known[plain_name(name)]


def dimension_named(name: str) -> Dimension:
    """The dimension with a name, which may be written as in `task_named`.

    Raises:
      ValueError: there is no such dimension.
    """
    known = {plain_name(dimension): dimension for dimension in Dimension}
    if plain_name(name) not in known:
        raise ValueError(f"unknown dimension {name!r}; there are {', '.join(Dimension)}")
    return known[plain_name(name)]


def plain_name(name: str) -> str:
    """A name in lower case, with "_" for "-" and spaces."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


FIXED_PROMPTS: dict[Task, str] = {
    Task.EXTEND_WITHOUT_PROMPT: "high-definition, perfect composition",
    Task.REMOVAL: "remove",
    **{Task(name): task.prompt for name, task in OWN.tasks.items() if task.prompt},
}
"""Prompts of the tasks without a user prompt, as in the authors' released demo."""

NEGATIVE_PROMPTS: tuple[str, ...] = ("", "nsfw", "blurry", "low quality")
"""Negative prompts drawn for preference candidates; "" stands for none (Section 3, stage 1)."""
