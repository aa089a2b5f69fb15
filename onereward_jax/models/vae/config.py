"""Settings of AutoencoderKL, as in the `vae/config.json` that diffusers writes."""

from __future__ import annotations

import dataclasses
from typing import Any

from onereward_jax.common.dataclass_fields import check_fields
from onereward_jax.common.listing import shown

MOST_BLOCKS = 8
"""A latent pixel of more blocks would be as large as a picture."""


@dataclasses.dataclass(frozen=True)
class VaeConfig:
    """Sizes of the VAE. Field names and meanings are those of diffusers' AutoencoderKL config."""

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 16
    norm_num_groups: int = 32
    scaling_factor: float = 0.3611
    shift_factor: float = 0.1159
    use_quant_conv: bool = False
    use_post_quant_conv: bool = False
    mid_block_add_attention: bool = True

    @property
    def scale_factor(self) -> int:
        """Image pixels per latent pixel, along one side (8 for FLUX)."""
        return 2 ** (len(self.block_out_channels) - 1)

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> VaeConfig:
        """Reads the dictionary of a `config.json`.

        Raises:
          ValueError: an unsupported layer type, activation or size; or no scaling_factor, whose
            default in diffusers is not FLUX's.
        """
        for field, kind in (
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ):
            found = config.get(field, [kind])
            if not isinstance(found, list | tuple) or any(one != kind for one in found):
                raise ValueError(f"VAE config: {field} {shown(found)} is unsupported, only {kind}")
        if config.get("act_fn", "silu") != "silu":
            raise ValueError(
                f"VAE config: act_fn {shown(config['act_fn'])} is unsupported, only 'silu'"
            )
        names = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in config.items() if key in names}
        if values.get("shift_factor") is None:  # as in diffusers
            values["shift_factor"] = 0.0
        if "scaling_factor" not in values:
            raise ValueError("VAE config: scaling_factor is missing")
        values = check_fields("VAE config", cls, values)
        # It has the same length as the block type lists above.
        channels = values.get("block_out_channels", cls.block_out_channels)
        groups = values.get("norm_num_groups", cls.norm_num_groups)
        if not 0 < len(channels) <= MOST_BLOCKS or any(one % groups or not one for one in channels):
            raise ValueError(
                f"VAE config: block_out_channels is {shown(channels)}, 1 to {MOST_BLOCKS} "
                f"multiples of norm_num_groups {groups} expected"
            )
        values["block_out_channels"] = tuple(channels)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The dictionary that diffusers reads back as an equal AutoencoderKL."""
        depth = len(self.block_out_channels)
        return {
            "_class_name": "AutoencoderKL",
            "act_fn": "silu",
            "down_block_types": ["DownEncoderBlock2D"] * depth,
            "up_block_types": ["UpDecoderBlock2D"] * depth,
            **dataclasses.asdict(self),
            "block_out_channels": list(self.block_out_channels),
        }
