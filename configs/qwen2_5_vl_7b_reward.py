"""The judge alone: Qwen2.5-VL-7B-Instruct learns the preferences of flux_fill_dev.py.

The chain up to the stage `reward`; a run of flux_fill_dev.py in the same workdir goes on from it.
"""

import pathlib
import runpy

from ml_collections import ConfigDict

BASE = pathlib.Path(__file__).with_name("flux_fill_dev.py")


def get_config() -> ConfigDict:
    """The experiment."""
    config = runpy.run_path(str(BASE))["get_config"]()
    config.stages = (  # the chain, when --stage is not given
        "data",
        "embed",
        "candidates",
        "annotate",
        "reward",
    )
    for section in ("guidance", "rl", "evaluate", "export"):
        del config[section]
    return config
