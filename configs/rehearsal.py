"""The rehearsal of a real run (launch/rehearse.sh): mini.py:smoke on a folder, judged by people.

Two aspect-ratio buckets, a mesh with two axes, small batches: everything a real run does, in
minutes. The data folder and the work folder are set on the command line.

    launch/rehearse.sh

Cost: about 10 minutes on two cores.
Result: every stage runs, is killed and resumes; nothing is learned.
"""

from ml_collections import ConfigDict

from configs import mini


def get_config() -> ConfigDict:
    """The experiment."""
    config = mini.get_config("smoke,folder")
    config.mesh.update(data=2, fsdp=1, tensor=2)  # two processes with two devices each
    config.embed.batch_size = 8
    config.candidates.update(count=3, batch_size=8)
    config.reward.batch_size = 8
    config.evaluate.batch_size = 8
    data = config.data  # data.path is named on the command line
    data.image_size = 32
    data.aspect_ratios = (1.0, 1.5)  # two buckets, so two compiled steps
    return config
