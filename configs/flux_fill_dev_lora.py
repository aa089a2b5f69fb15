"""flux_fill_dev.py with a low-rank adapter in place of the whole transformer.

Master weights, moments, average and gradients are those of the adapter alone, and the editor
without it is the reference, so there is no second transformer.
"""

import pathlib
import runpy

from ml_collections import ConfigDict

BASE = pathlib.Path(__file__).with_name("flux_fill_dev.py")


def get_config() -> ConfigDict:
    """The experiment."""
    config = runpy.run_path(str(BASE))["get_config"]()
    rl = config.rl
    lora = rl.lora
    lora.rank = 64  # of the adapter
    lora.alpha = 64.0  # the adapter counts alpha / rank times
    rl.optimizer.learning_rate = 1e-4  # the peak; adapters take larger steps than whole weights
    return config
