"""FLUX.1's rectified-flow transformer (Black Forest Labs), equal to diffusers' class.

Tested against `FluxTransformer2DModel` of diffusers 0.42.1. One difference, in bfloat16 only:
diffusers rounds the timestep to the compute dtype before embedding it, here it stays float32.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from onereward_jax.models import int8, lora
from onereward_jax.models.flux.blocks import FluxSingleTransformerBlock, FluxTransformerBlock
from onereward_jax.models.flux.config import FluxConfig
from onereward_jax.models.flux.layers import ZEROS, Dense, Modulation, modulate
from onereward_jax.models.flux.rotary import rotary_table
from onereward_jax.models.flux.time_embedding import TimeTextEmbed
from onereward_jax.models.flux.token_order import TOKENS, TokenOrder
from onereward_jax.models.layers import constrain
from onereward_jax.parallel import remat

TIMESTEPS = 1000.0

INT8_LAYERS = r"(single_)?transformer_blocks/"
"""Linear layers to quantise (`models.int8.quantize`): those of the blocks.

Embeddings and the last layers have next to no operations and weights, and all else depends on
them. The modulations of the blocks have few operations, but a quarter of the weights of FLUX.1."""


class FluxTransformer(nn.Module):
    """Velocity of the latents, given noise level, prompt and (FLUX.1-Fill) masked image.

    At initialization it predicts exactly zero: modulations and output projection are zero (DiT).

    Attributes:
      config: sizes.
      dtype: dtype of matmuls and the residual stream; norms, modulation, rotary positions and
        softmax are always float32.
      param_dtype: dtype of the parameters.
      remat: remat policy of both stacks, see `parallel.remat`.
    """

    config: FluxConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        hidden_states: Float[Array, "b n in_channels"],
        encoder_hidden_states: Float[Array, "b l joint_attention_dim"],
        pooled_projections: Float[Array, "b pooled_projection_dim"],
        timestep: Float[Array, "b"],
        img_ids: Num[Array, "n axes"],
        txt_ids: Num[Array, "l axes"],
        guidance: Float[Array, "b"] | None = None,
    ) -> Float[Array, "b n out_channels"]:
        """The predicted velocity, noise minus image.

        Args:
          hidden_states: packed image tokens; FLUX.1-Fill joins noisy latents, masked-image
            latents and mask along the channels.
          encoder_hidden_states: prompt embeddings (T5).
          pooled_projections: pooled prompt embedding (CLIP).
          timestep: noise level sigma in [0, 1]; the model multiplies by 1000.
          img_ids, txt_ids: (time, row, column) of each token; zeros for text.
          guidance: distilled guidance scale, only for configs with `guidance_embeds`.

        Raises:
          ValueError: guidance is missing or not expected by the config.
        """
        config = self.config
        if config.guidance_embeds != (guidance is not None):
            given = "missing" if guidance is None else "given"
            raise ValueError(
                f"guidance is {given}, but FLUX config has guidance_embeds={config.guidance_embeds}"
            )
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        conditioning = nn.silu(
            TimeTextEmbed(config, name="time_text_embed", **kinds)(
                TIMESTEPS * timestep.astype(jnp.float32),
                None if guidance is None else TIMESTEPS * guidance.astype(jnp.float32),
                pooled_projections,
            )
        )
        order = TokenOrder.on_mesh(txt_ids.shape[0], img_ids.shape[0])
        ids = order.join(order.pad(txt_ids, 0), order.pad(img_ids, 0), 0)
        rotary = rotary_table(ids, config.axes_dims_rope)

        inputs = ("embed", "mlp")
        image = Dense(config.inner_dim, inputs, name="x_embedder", **kinds)(
            order.pad(hidden_states)
        )
        text = Dense(config.inner_dim, inputs, name="context_embedder", **kinds)(
            order.pad(encoder_hidden_states)
        )
        streams = constrain(image, TOKENS), constrain(text, TOKENS)
        (image, text), _ = self._stack(FluxTransformerBlock, config.num_layers)(
            config, order, name="transformer_blocks", **kinds
        )(streams, conditioning, rotary)

        joined = constrain(order.join(text, image), TOKENS)
        joined, _ = self._stack(FluxSingleTransformerBlock, config.num_single_layers)(
            config, order, name="single_transformer_blocks", **kinds
        )(joined, conditioning, rotary)

        scale, shift = Modulation(2, name="norm_out", **kinds)(conditioning)
        image = modulate(order.split(joined)[1], shift, scale)
        velocity = Dense(
            config.token_out_channels,
            ("mlp", "embed"),
            name="proj_out",
            kernel_init=ZEROS,
            **kinds,
        )(image)
        return order.gather(velocity)

    def _stack(self, block: type[nn.Module], length: int) -> type[nn.Module]:
        """`length` blocks; parameters, scales and adapters have a leading "layers" axis."""
        return nn.scan(
            remat(block, self.remat),
            variable_axes={"params": 0, int8.COLLECTION: 0, lora.COLLECTION: 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=length,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
