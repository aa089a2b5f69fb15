"""flux_fill_dev.py with Algorithm 2: the reference is the policy's moving average.

The bar rises with the policy, and the step holds one copy of the editor less.
"""

import pathlib
import runpy

from ml_collections import ConfigDict

BASE = pathlib.Path(__file__).with_name("flux_fill_dev.py")


def get_config() -> ConfigDict:
    """The experiment."""
    config = runpy.run_path(str(BASE))["get_config"]()
    rl = config.rl
    rl.algorithm = "dynamic"  # "frozen" reference (Algorithm 1) or "dynamic" (Algorithm 2)
    return config
