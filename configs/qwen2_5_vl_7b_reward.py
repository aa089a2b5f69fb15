"""Only the judge: trains Qwen2.5-VL-7B-Instruct on the preferences of flux_fill_dev.py.

Runs the stages up to `reward`; a run of flux_fill_dev.py in the same workdir continues from there.

    python -m onereward_jax.main --config=configs/qwen2_5_vl_7b_reward.py \\
        --workdir=gs://bucket/run --config.data.path=...

Cost: docs/fits.md. Result: not run yet.
"""

from ml_collections import ConfigDict

from configs import flux_fill_dev


def get_config() -> ConfigDict:
    """The experiment."""
    config = flux_fill_dev.get_config()
    config.stages = ("data", "embed", "candidates", "annotate", "reward")
    for section in ("guidance", "rl", "evaluate", "export"):
        del config[section]
    return config
