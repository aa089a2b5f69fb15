"""qwen2_5_vl_7b_reward.py with a LoRA adapter instead of full fine-tuning.

Only the adapter has master weights, Adam moments and gradients. The stage writes the merged judge,
so a run of flux_fill_dev.py in the same workdir continues with it, and the adapter for peft.

    python -m onereward_jax.main --config=configs/qwen2_5_vl_7b_reward_lora.py \\
        --workdir=gs://bucket/run --config.data.path=...

Cost: docs/lora.md. Result: not run yet.
"""

from ml_collections import ConfigDict

from configs import qwen2_5_vl_7b_reward


def get_config() -> ConfigDict:
    """The experiment."""
    config = qwen2_5_vl_7b_reward.get_config()
    config.reward.lora.rank = 64
    config.reward.lora.alpha = 64.0
    config.reward.optimizer.learning_rate = 1e-5  # LoRA needs a larger one than full fine-tuning
    return config
