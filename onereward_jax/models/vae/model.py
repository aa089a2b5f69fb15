"""AutoencoderKL of FLUX.1 as a Linen module. Original: diffusers' `AutoencoderKL`."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from onereward_jax.models.vae.config import VaeConfig
from onereward_jax.models.vae.layers import (
    AttentionBlock,
    Conv,
    GroupNorm,
    ResnetBlock,
    Upsample,
    gather_rows,
    spread_rows,
)
from onereward_jax.parallel import remat


class MidBlock(nn.Module):
    """Residual block, attention, residual block. Original: UNetMidBlock2D."""

    config: VaeConfig
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        groups = self.config.norm_num_groups
        resnet = remat(ResnetBlock, self.remat, scanned=False)
        x = resnet(x.shape[-1], groups, name="resnets_0", **kinds)(x)
        if self.config.mid_block_add_attention:
            x = AttentionBlock(groups, name="attentions_0", **kinds)(x)
        return resnet(x.shape[-1], groups, name="resnets_1", **kinds)(x)


class DownBlock(nn.Module):
    """Residual blocks, then downsampling unless last. Original: DownEncoderBlock2D."""

    features: int
    config: VaeConfig
    last: bool
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = _resnets(self, x, self.config.layers_per_block)
        return x if self.last else spread_rows(Downsample(name="downsamplers_0", **kinds)(x))


class Downsample(nn.Module):
    """A strided convolution padded at the bottom and right only. Original: Downsample2D."""

    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return Conv(x.shape[-1], stride=2, padding=((0, 1), (0, 1)), name="conv", **kinds)(x)


def _resnets(
    block: DownBlock | UpBlock, x: Float[Array, "b h w c"], count: int
) -> Float[Array, "b h w d"]:
    """The residual blocks of a block, which are made in it."""
    resnet = remat(ResnetBlock, block.remat, scanned=False)
    groups, kinds = block.config.norm_num_groups, (block.dtype, block.param_dtype)
    for layer in range(count):
        x = spread_rows(resnet(block.features, groups, *kinds, name=f"resnets_{layer}")(x))
    return x


class UpBlock(nn.Module):
    """Residual blocks (one more than in `DownBlock`), then upsampling unless last.

    Original: UpDecoderBlock2D.
    """

    features: int
    config: VaeConfig
    last: bool
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = _resnets(self, x, self.config.layers_per_block + 1)
        return x if self.last else spread_rows(Upsample(name="upsamplers_0", **kinds)(x))


class Encoder(nn.Module):
    """Images to the moments of the latent distribution, concatenated along the channels."""

    config: VaeConfig
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        config, kinds = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        depth = len(config.block_out_channels)
        x = spread_rows(Conv(config.block_out_channels[0], name="conv_in", **kinds)(images))
        for level, features in enumerate(config.block_out_channels):
            last = level == depth - 1
            down = DownBlock(
                features, config, last, name=f"down_blocks_{level}", remat=self.remat, **kinds
            )
            x = down(x)
        x = MidBlock(config, name="mid_block", remat=self.remat, **kinds)(gather_rows(x))
        x = nn.silu(GroupNorm(config.norm_num_groups, name="conv_norm_out", **kinds)(x))
        return Conv(2 * config.latent_channels, name="conv_out", **kinds)(x)


class Decoder(nn.Module):
    """Latents to images."""

    config: VaeConfig
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        config, kinds = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        depth = len(config.block_out_channels)
        x = Conv(config.block_out_channels[-1], name="conv_in", **kinds)(latents)
        x = MidBlock(config, name="mid_block", remat=self.remat, **kinds)(x)
        x = spread_rows(gather_rows(x))
        for level, features in enumerate(reversed(config.block_out_channels)):
            last = level == depth - 1
            up = UpBlock(
                features, config, last, name=f"up_blocks_{level}", remat=self.remat, **kinds
            )
            x = up(x)
        x = nn.silu(GroupNorm(config.norm_num_groups, name="conv_norm_out", **kinds)(x))
        return Conv(config.out_channels, name="conv_out", **kinds)(x)


class AutoencoderKL(nn.Module):
    """The VAE. Its latents are unscaled; the policy applies scaling and shift.

    Attributes:
      config: sizes.
      dtype: compute dtype (moments of the norms are always float32).
      param_dtype: dtype of the parameters made by `init`.
      remat: remat policy of the residual blocks, see `parallel.remat`.
    """

    config: VaeConfig
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32
    remat: str = "none"

    def setup(self) -> None:
        """Makes encoder, decoder and the optional 1×1 convolutions between them."""
        config, kinds = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.encoder = Encoder(config, remat=self.remat, **kinds)
        self.decoder = Decoder(config, remat=self.remat, **kinds)
        if config.use_quant_conv:
            self.quant_conv = Conv(2 * config.latent_channels, size=1, **kinds)
        if config.use_post_quant_conv:
            self.post_quant_conv = Conv(config.latent_channels, size=1, **kinds)

    def encode(
        self, images: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b h2 w2 z"], Float[Array, "b h2 w2 z"]]:
        """Mean and log variance (clipped to [-30, 20]) of the latents of images in [-1, 1]."""
        images = nn.with_logical_constraint(images, ("batch", None, None, None))
        moments = self.encoder(spread_rows(images.astype(self.dtype)))
        if self.config.use_quant_conv:
            moments = self.quant_conv(moments)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(log_variance, -30.0, 20.0)

    def decode(self, latents: Float[Array, "b h w z"]) -> Float[Array, "b h2 w2 c"]:
        """Images from latents, approximately in [-1, 1], not clipped."""
        latents = nn.with_logical_constraint(latents, ("batch", None, None, None))
        latents = latents.astype(self.dtype)
        if self.config.use_post_quant_conv:
            latents = self.post_quant_conv(latents)
        return self.decoder(latents)

    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Reconstructs `images` from their mean latents; used by `init` to make all parameters."""
        return self.decode(self.encode(images)[0])
