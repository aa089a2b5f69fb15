"""What is compiled: a jitted function, its abstract arguments, and what its estimate needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from onereward_jax.convert.layouts import Layout
from onereward_jax.parallel import MeshFunction
from onereward_jax.training.count_jaxpr_flops import Assumptions


@dataclasses.dataclass(frozen=True)
class Main:
    """The model that takes most of the time of a step.

    Attributes:
      weights: pytree of its weights' shapes and shardings.
      dtype: compute dtype.
      tokens: tokens per sample.
      passes: forward passes per step; a backward pass counts as two.
      int8_passes: those of them with weights in int8.
      int8: pytree of the shapes of these weights; None if there are none.
      learns: whether there are backward passes.
    """

    weights: Any
    dtype: Any
    tokens: int
    passes: float
    learns: bool
    int8_passes: float = 0.0
    int8: Any = None


@dataclasses.dataclass(frozen=True)
class Written:
    """A model that a stage saves at its end.

    Attributes:
      params: pytree of its parameters' shapes and shardings.
      layout, config: arguments of `convert.save_params`.
      stays: pytree of the other arrays that are on the devices while it is saved.
    """

    params: Any
    layout: Layout
    config: Mapping[str, Any]
    stays: Any = None


@dataclasses.dataclass(frozen=True)
class Job:
    """A jitted function and its abstract arguments.

    Attributes:
      function: as the stage builds it.
      arguments: shapes, dtypes and shardings.
      batch_size: samples per call, over all devices.
      model_flops: FLOPs of a call on all devices, see `training.model_flops`; 0 if not computed.
      int8_flops: those of them that are products of int8.
      assumptions: trip counts and shares that the trace does not determine.
      main: input of the estimates; None if no estimates are made.
      resident: pytree of the arrays that are on the devices during the call but no arguments.
      written: the model that the stage saves afterwards; None if it saves none.
    """

    function: MeshFunction
    arguments: tuple[Any, ...]
    batch_size: int
    model_flops: float
    assumptions: Assumptions
    main: Main | None = None
    int8_flops: float = 0.0
    resident: Any = None
    written: Written | None = None
