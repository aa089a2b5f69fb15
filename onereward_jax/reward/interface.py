"""What reinforcement asks of a reward, and how to write one of your own.

`config.rl.reward` names it: "judge", the trained judge of the stage `reward`, or a module or a
Python file of yours that holds

    def make(config, mesh): ...  # -> Reward

`config` is the whole config of the run (an `ml_collections.FrozenConfigDict`; put no field of
yours there, but constants into your file), `mesh` the devices. A `make` that also takes `workdir`
is given the folder of the run, with what earlier stages wrote. A reward that needs no weights and
asks no questions is short:

    class Bright:
        def score(self, params, images_a, images_b, batch):
            def light(images):
                return (images * batch["mask"]).mean(axis=(1, 2, 3))
            better = 10.0 * (light(images_a) - light(images_b))[:, None]
            better = jnp.broadcast_to(better, batch["dimension_mask"].shape)
            return jax.nn.log_sigmoid(better), jax.nn.log_sigmoid(-better)

    def make(config, mesh):
        return Reward(scorer=lambda size: Bright())

`score` runs inside the jitted step and is differentiated with respect to `images_a`, the policy's
pictures; `images_b` are the reference's. All else of Algorithms 1 and 2 stays as it is: λ, the
dimensions' weights, the flow-matching term.
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
"""Height and width of pictures."""


@runtime_checkable
class PairScorer(Protocol):
    """A judge of pairs: `reward.Scorer`, or any other differentiable reward in its place."""

    def score(
        self,
        params: PyTree,
        images_a: Float[Array, "b h w 3"],
        images_b: Float[Array, "b h w 3"],
        queries: QueryBatch | Mapping[str, Any],
    ) -> tuple[Float32[Array, "b e"], Float32[Array, "b e"]]:
        """(log P("Yes"), log P("No")) to "is image a better than image b?", per dimension.

        Args:
          params: weights, never updated.
          images_a, images_b: in [-1, 1].
          queries: the questions; of a reward without `Reward.queries` the batch itself: image
            [b, h, w, 3] (the source), mask [b, h, w, 1] (1 = edited), task [b] (index into
            `tasks.TASKS`), dimension_mask [b, e] (False where the task has no such dimension: the
            answer is not looked at there), and what else `training.rl_rollout.Batch` has.
        """


@runtime_checkable
class Questions(Protocol):
    """Makes the questions of a batch on the host: `reward.QueryTokenizer`, or another."""

    def encode(self, tasks: Sequence[Task], prompts: Sequence[str]) -> QueryBatch:
        """Token ids, [b, ...] each. Runs in reading threads: it must not raise."""


@dataclasses.dataclass(frozen=True)
class Reward:
    """What `make` returns.

    Attributes:
      scorer: size of the pictures -> what compares pictures of that size.
      params: its weights, arrays on the mesh (`parallel.replicated(mesh)` puts small ones
        everywhere). An argument of the jitted step, so never read inside of `score` from outside.
      queries: size -> what makes the questions. None: the scorer is given the batch instead.
    """

    scorer: Callable[[Size], PairScorer]
    params: PyTree = dataclasses.field(default_factory=dict)
    queries: Callable[[Size], Questions] | None = None


def dimension_mask(tasks: Sequence[Task]) -> Bool[np.ndarray, "b e"]:
    """Which dimensions each sample's task has, for rewards that ask no questions."""
    counts = np.array([len(DIMENSIONS[task]) for task in tasks])
    return np.arange(MAX_DIMENSIONS) < counts[:, None]
