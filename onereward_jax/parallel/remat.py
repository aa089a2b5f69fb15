"""Rematerialisation policies of layer stacks, by name."""

from __future__ import annotations

import flax.linen as nn
import jax

POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
}


def remat(block: type[nn.Module], policy: str, *, scanned: bool = True) -> type[nn.Module]:
    """`block` with its activations recomputed in the backward pass.

    Args:
      block: the module class of one layer.
      policy: "none" keeps all activations, "full" keeps only the block's input, "dots" keeps
        the outputs of matrix products with weights.
      scanned: it is to be given to `nn.scan`. Otherwise the compiler has to be kept from finding
        out that what is computed again has been computed before.

    Raises:
      ValueError: unknown policy.
    """
    if policy == "none":
        return block
    if policy not in POLICIES:
        raise ValueError(f"remat policy {policy!r}: choose one of none, {', '.join(POLICIES)}")
    return nn.remat(block, policy=POLICIES[policy], prevent_cse=not scanned)
