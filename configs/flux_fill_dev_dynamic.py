"""flux_fill_dev.py with Algorithm 2: the reference is the EMA of the policy.

The reference improves with the policy, and memory holds one copy of the editor less.

    python -m onereward_jax.main --config=configs/flux_fill_dev_dynamic.py \\
        --workdir=gs://bucket/dynamic --config.data.path=...

Cost: docs/fits.md. Result: not run yet.
"""

from ml_collections import ConfigDict

from configs import flux_fill_dev


def get_config() -> ConfigDict:
    """The experiment."""
    config = flux_fill_dev.get_config()
    config.rl.algorithm = "dynamic"
    return config
