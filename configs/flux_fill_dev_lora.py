"""flux_fill_dev.py with a LoRA adapter instead of full fine-tuning.

Only the adapter has master weights, Adam moments, EMA and gradients. The reference is the editor
without the adapter, so there is no second transformer.

    python -m onereward_jax.main --config=configs/flux_fill_dev_lora.py \\
        --workdir=gs://bucket/lora --config.data.path=...

Cost: docs/fits.md. Result: not run yet.
"""

from ml_collections import ConfigDict

from configs import flux_fill_dev


def get_config() -> ConfigDict:
    """The experiment."""
    config = flux_fill_dev.get_config()
    config.rl.lora.rank = 64
    config.rl.lora.alpha = 64.0
    config.rl.optimizer.learning_rate = 1e-4  # LoRA needs a larger one than full fine-tuning
    return config
