"""The methods of the package, by their names in `config.rl.algorithm`."""

from onereward_jax.training.algorithm import DYNAMIC, FROZEN
from onereward_jax.training.methods.dpo import DPO
from onereward_jax.training.methods.method import Method
from onereward_jax.training.methods.online import DIFFUSION_NFT, FLOW_GRPO
from onereward_jax.training.methods.refl import REFL
from onereward_jax.training.methods.reward_feedback import reward_feedback
from onereward_jax.training.methods.winners import WINNERS

METHODS: dict[str, Method] = {
    "frozen": reward_feedback(FROZEN),
    "dynamic": reward_feedback(DYNAMIC),
    "nft": DIFFUSION_NFT,
    "grpo": FLOW_GRPO,
    "refl": REFL,
    "winners": WINNERS,
    "dpo": DPO,
}
"""Value of `config.rl.algorithm` -> method. `chain.plugins.BUILT_IN` has the same names."""
