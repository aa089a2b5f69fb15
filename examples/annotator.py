"""A custom annotator: the closer to the target inside the mask, the better.

For triplets with a known perfect edit, such as those of `examples/data_source.py`. All dimensions
of the task get the same answer.

    python -m onereward_jax.main --config=configs/mini.py:folder --workdir=runs/pasted \
      --config.data.source=examples/data_source.py --config.data.path=photos \
      --config.annotate.by=examples/annotator.py
"""

import numpy as np

from onereward_jax.tasks import DIMENSIONS

LEAST_LEAD = 1.0  # smaller error differences, on a scale of 0 to 255, give no preference


class Nearest:
    """Ranks candidates by their mean absolute error."""

    name = "nearest to the target"

    def answer(self, asked):
        """Dimension -> (best, worst) among the candidates; None if there is no preference."""
        pair = None
        if asked.example["has_target"]:
            errors = [self.error(picture, asked.example) for picture in asked.pictures]
            if max(errors) - min(errors) >= LEAST_LEAD:
                pair = (int(np.argmin(errors)), int(np.argmax(errors)))
        return dict.fromkeys(DIMENSIONS[asked.task], pair)

    def error(self, picture, example):
        """Mean absolute difference from the target over pixels inside the mask."""
        inside = example["mask"][..., 0] > 0
        difference = np.float32(picture) - np.float32(example["target"])
        return float(np.abs(difference)[inside].mean())


def make_annotator(config):
    """Returns the annotator."""
    return Nearest()


def describe(config):
    """Text for the model card."""
    return "a comparison with the perfect edit"
