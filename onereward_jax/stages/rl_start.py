"""Where `rl` starts: from the base, or in later rounds from the policy of the round before."""

from __future__ import annotations

from pathlib import Path

from jax.sharding import Mesh
from jaxtyping import PyTree

from onereward_jax.chain.stage import StageContext
from onereward_jax.convert import FLUX, load_params
from onereward_jax.models.lora import Adapter, LoraConfig, combine, scale_factors
from onereward_jax.parallel import mesh_jit
from onereward_jax.policy import FillPolicy
from onereward_jax.policy.lora_adapters import abstract_editor_adapter, load_adapters
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.training.train_state import shardings_of


def goes_on(context: StageContext) -> bool:
    """Whether `rl` goes on from the last round's policy; Algorithm 1's reference stays the base."""
    return context.round > 1 and context.config.later_rounds.rl == "policy"


def last_weights(
    context: StageContext, name: str, editor: FillPolicy, *, lora: LoraConfig | None, mesh: Mesh
) -> PyTree:
    """What the last round trained: a transformer, or the factors of an adapter.

    Args:
      context: of the stage `rl` in a later round.
      name: "policy" or "ema".
      editor: the static part of the editor.
      lora: the adapter's configuration; None: all weights are trained.
      mesh: mesh of the weights.
    """
    folder: Path = context.output("rl", context.round - 1) / name
    if lora is None:
        return load_params(folder, abstract_params(editor, mesh).transformer, FLUX)
    ((adapter, _),) = load_adapters([(folder, 1.0)], editor, mesh)
    abstract = abstract_editor_adapter(editor, lora, mesh)

    def unscaled(adapter: Adapter) -> PyTree:
        return scale_factors(combine([(adapter, 1.0)]), 1.0 / lora.scale)

    return mesh_jit(unscaled, mesh, out_shardings=shardings_of(abstract))(adapter)
