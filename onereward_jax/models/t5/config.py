"""Configuration of a T5 encoder, as stored in transformers' `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from onereward_jax.common.dataclass_fields import check_fields

# feed_forward_proj -> (gated, activation). Only "gated-gelu" means the tanh approximation.
FEED_FORWARDS = {
    "relu": (False, "relu"),
    "gelu": (False, "gelu"),
    "silu": (False, "silu"),
    "gated-relu": (True, "relu"),
    "gated-gelu": (True, "gelu_new"),
    "gated-silu": (True, "silu"),
}


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes of the encoder. Field names and defaults are those of transformers' `T5Config`.

    Attributes:
      vocab_size: rows of the token embedding.
      d_model: width of the residual stream.
      d_kv: channels per head.
      d_ff: hidden width of the feed-forward layers.
      num_layers: encoder blocks.
      num_heads: attention heads; heads x d_kv need not equal d_model.
      relative_attention_num_buckets: buckets of query-key distances.
      relative_attention_max_distance: distance in tokens beyond which all share a bucket.
      layer_norm_epsilon: added to the mean square.
      feed_forward_proj: "relu" in the first T5, "gated-gelu" in T5 v1.1 (T5-XXL of FLUX).

    Raises:
      ValueError: a `feed_forward_proj` that is not supported.
    """

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"

    def __post_init__(self) -> None:
        if self.feed_forward_proj not in FEED_FORWARDS:
            raise ValueError(
                f"T5 config: feed_forward_proj {self.feed_forward_proj!r} is not supported; "
                f"choose one of {', '.join(FEED_FORWARDS)}"
            )

    @property
    def is_gated(self) -> bool:
        """Whether a second projection multiplies the activation."""
        return FEED_FORWARDS[self.feed_forward_proj][0]

    @property
    def activation(self) -> str:
        """Name of the feed-forward's non-linearity."""
        return FEED_FORWARDS[self.feed_forward_proj][1]

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> T5Config:
        """From the parsed `config.json`; decoder and generation entries are ignored.

        Raises:
          ValueError: another kind of model, or an unsupported field value.
        """
        if config.get("model_type", "t5") != "t5":
            raise ValueError(f"T5 config: model_type is {config['model_type']!r}, not 't5'")
        config = check_fields("T5 config", cls, config)
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in config.items() if name in names})
