"""Inputs of the transformer in addition to noisy latents.

Single letters: b batch, n image tokens, k channels of a condition token, l text tokens, d channels
of a T5 token, p channels of CLIP's pooled output.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float


class Condition(NamedTuple):
    """Source and mask of a batch of images of one size.

    Attributes:
      tokens: masked image latents and mask, concatenated along the channels.
      ids: position (0, row, column) of each token, the same for the whole batch.
    """

    tokens: Float[Array, "b n k"]
    ids: Float[Array, "n 3"]


class PromptEmbeds(NamedTuple):
    """Encoded prompts of a batch, on the device or as numpy arrays.

    Attributes:
      prompt_embeds: T5's last hidden states, including padding.
      pooled_prompt_embeds: CLIP's pooled output.
    """

    prompt_embeds: Float[Array | np.ndarray, "b l d"]
    pooled_prompt_embeds: Float[Array | np.ndarray, "b p"]
