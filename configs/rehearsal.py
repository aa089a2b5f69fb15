"""The rehearsal of a real run (launch/rehearse.sh): mini.py:smoke on a folder, judged by people.

Two buckets, one mesh with two axes, small batches: whatever a real run does, in minutes. The folder
and the work folder are named on the command line.
"""

import pathlib
import runpy

from ml_collections import ConfigDict

BASE = pathlib.Path(__file__).with_name("mini.py")


def get_config() -> ConfigDict:
    """The experiment."""
    config = runpy.run_path(str(BASE))["get_config"]("smoke")
    config.mesh.update(data=2, fsdp=1, tensor=2)  # two processes with two devices each
    config.embed.batch_size = 8
    config.candidates.update(count=3, batch_size=8, disturbed=0.0)
    config.reward.batch_size = 8
    config.evaluate.batch_size = 8
    data, annotate, rl = config.data, config.annotate, config.rl
    data.source = "folder"  # data.path is named on the command line
    data.image_size = 32  # height and width of a square picture in pixels
    data.aspect_ratios = (1.0, 1.5)  # two buckets, so two compiled steps
    annotate.by = "people"  # the rehearsal answers for them
    rl.flow_matching_weight = 0.0  # photographs have no target
    return config
