"""The judge that fits its validation pairs best, kept during training.

A judge trained on few pairs fits them ever better, while on others it first improves and then gets
worse. The best one is a checkpoint of its own beside those of the training, so a resumed run keeps
the same one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array, Float32, Int32, PyTree

from onereward_jax.parallel import replicated
from onereward_jax.training.checkpoint import About, Checkpointer
from onereward_jax.training.train_state import TrainState


class Best(NamedTuple):
    """What is saved.

    Attributes:
      step: the step after which it was measured.
      params: trained parameters.
      loss: loss of the validation pairs.
    """

    step: Int32[Array, ""]
    params: PyTree
    loss: Float32[Array, ""]


class _NoData:
    """The position of no data, for `Checkpointer`."""

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


class BestJudge:
    """Keeps the best judge of a training run in a folder."""

    def __init__(self, folder: epath.PathLike, about: About, abstract: PyTree) -> None:
        """Opens the folder, which may have the best judge so far.

        Args:
          folder: only for this; may be in a bucket.
          about: see `Checkpointer`.
          abstract: shapes and shardings of the trained parameters.
        """
        self._folder, self._about = folder, about
        mesh = next(iter(jax.tree.leaves(abstract))).sharding.mesh
        self._place = replicated(mesh)
        scalar = {"shape": (), "sharding": self._place}
        self._abstract = Best(
            jax.ShapeDtypeStruct(dtype=jnp.int32, **scalar),
            abstract,
            jax.ShapeDtypeStruct(dtype=jnp.float32, **scalar),
        )
        self._loss: float | None = None

    def consider(self, state: TrainState, loss: float) -> bool:
        """Keeps the parameters of `state` if their loss is the least so far; whether it is."""
        if self._loss is None:
            found = self.read()
            self._loss = math.inf if found is None else float(found.loss)
        if not loss < self._loss:
            return False
        with Checkpointer(self._folder, self._about, keep=1) as checkpointer:
            value = jax.device_put(jnp.float32(loss), self._place)
            checkpointer.save(Best(state.step, state.params, value), _NoData())
        self._loss = loss
        return True

    def read(self) -> Best | None:
        """The best judge so far, if any."""
        with Checkpointer(self._folder, self._about, keep=1) as checkpointer:
            return checkpointer.restore_newest(self._abstract, _NoData())[0]
