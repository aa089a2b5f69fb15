"""Remat policies for layer stacks, by name."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

ATTENTION = "attention"
"""Name (`jax.ad_checkpoint.checkpoint_name`) of attention outputs."""

BLOCK_INPUT = "block_input"
"""Name of the inputs of a block."""

POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[BLOCK_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
    "attention": jax.checkpoint_policies.save_only_these_names(ATTENTION),
    "dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
}


def remat(block: type[nn.Module], policy: str, *, scanned: bool = True) -> type[nn.Module]:
    """`block` with its activations recomputed in the backward pass.

    Args:
      block: the module class of one layer.
      policy: "none" keeps all activations, "full" keeps only the block's input, "offload" keeps
        that input in host memory, "attention" keeps the input and the attention output, "dots"
        keeps the outputs of matmuls with weights.
      scanned: the block is passed to `nn.scan`. Otherwise CSE must be prevented from undoing the
        recomputation.

    Raises:
      ValueError: unknown policy.
    """
    if policy == "none":
        return block
    if policy not in POLICIES:
        raise ValueError(f"remat policy {policy!r}: choose one of none, {', '.join(POLICIES)}")
    if policy == "offload":
        block = _with_named_input(block)
    return nn.remat(block, policy=POLICIES[policy], prevent_cse=not scanned)


def _with_named_input(block: type[nn.Module]) -> type[nn.Module]:
    """`block` with its first argument named `BLOCK_INPUT`."""

    class Named(block):
        def __call__(self, inputs: Any, *rest: Any) -> Any:
            named = jax.tree.map(lambda array: checkpoint_name(array, BLOCK_INPUT), inputs)
            return super().__call__(named, *rest)

    return Named
