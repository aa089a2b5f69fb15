"""The interface of rewards for RL; `examples/reward.py` is one.

`config.rl.reward` names the reward: "judge" (the trained judge of the stage `reward`), or a plug-in
with

    def make_reward(config, mesh): ...  # -> Reward

`config` is the full config of the run (an `ml_collections.FrozenConfigDict`), `mesh` the device
mesh. If `make_reward` also takes `workdir`, it gets the folder of the run, with the outputs of
earlier stages.

`score` runs inside the jitted train step and is differentiated with respect to `images_a`, the
policy's images; `images_b` are the reference's. The rest of Algorithms 1 and 2 is unchanged: λ, the
dimension weights, the flow-matching term.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Float32, PyTree

from onereward_jax.reward.query import QueryBatch
from onereward_jax.tasks import DIMENSIONS, MAX_DIMENSIONS, Task

Size = tuple[int, int]
"""Height and width of images in pixels."""


@runtime_checkable
class PairScorer(Protocol):
    """Compares image pairs: `reward.Scorer`, or any other differentiable reward."""

    def score(
        self,
        params: PyTree,
        images_a: Float[Array, "b h w 3"],
        images_b: Float[Array, "b h w 3"],
        queries: QueryBatch | Mapping[str, Any],
    ) -> tuple[Float32[Array, "b e"], Float32[Array, "b e"]]:
        """(log P("Yes"), log P("No")) to "is image a better than image b?", per dimension.

        Args:
          params: weights of the reward, not trained.
          images_a, images_b: in [-1, 1].
          queries: the questions; if `Reward.queries` is None, the batch itself: image
            [b, h, w, 3] (the source), mask [b, h, w, 1] (1 = edited), task [b] (index into
            `tasks.TASKS`), dimension_mask [b, e] (False where the task has no such dimension: the
            answer is ignored there), and the other fields of `training.rl_rollout.Batch`.
        """


@runtime_checkable
class Questions(Protocol):
    """Makes the questions of a batch on the host, e.g. `reward.QueryTokenizer`."""

    def encode(self, tasks: Sequence[Task], prompts: Sequence[str]) -> QueryBatch:
        """Token ids, [b, ...] each. Runs in data loader threads: it must not raise."""


@dataclasses.dataclass(frozen=True)
class Reward:
    """The return type of `make_reward`.

    Attributes:
      scorer: image size -> scorer for images of that size.
      params: its weights, arrays on the mesh (use `parallel.replicated(mesh)` for small ones). They
        are an argument of the jitted step: `score` must use its argument, not close over them.
      queries: image size -> maker of the questions. None: the scorer gets the batch instead.
    """

    scorer: Callable[[Size], PairScorer]
    params: PyTree = dataclasses.field(default_factory=dict)
    queries: Callable[[Size], Questions] | None = None


def dimension_mask(tasks: Sequence[Task]) -> Bool[np.ndarray, "b e"]:
    """Which dimensions each sample's task has, for rewards that ask no questions."""
    counts = np.array([len(DIMENSIONS[task]) for task in tasks])
    return np.arange(MAX_DIMENSIONS) < counts[:, None]
