"""Augmentation of image pairs that does not change which image is better.

A judge trained on few pairs has spurious preferences: for patterns too faint to see, or for
brightness itself, because most of its training images were dark. A policy that follows its gradient
learns exactly these. Jitter, in training and in RL, prevents them: noise hides the patterns, and if
negatives are as common as positives, darker is not better than brighter. Pairs judged against a
prompt are never negated: a negative does not show the "dark blue" that the prompt asks for.
Not in the paper, whose judge has seven billion parameters and was trained on many more pairs.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Key, PRNGKeyArray


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Strengths of the augmentations; 0 turns one off.

    Attributes:
      noise: maximum standard deviation of the Gaussian noise, for images in [-1, 1]; drawn
        uniformly from [0, noise], shared by both images of a pair.
      shift: maximum shift of an image in pixels, in both directions along both axes; drawn per
        image. The border is repeated (edge padding).
      negative: probability that the brightness of both images is inverted, with hues kept; never
        for pairs judged against a prompt.

    Raises:
      ValueError: a field is negative, or a probability above 1.
    """

    noise: float = 0.0
    shift: int = 0
    negative: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} is {getattr(self, field.name)}, below 0")
        if self.negative > 1:
            raise ValueError(f"negative is {self.negative}: a probability expected")

    def __bool__(self) -> bool:
        return self != Jitter()


def jitter_pairs(
    keys: Key[Array, "b"],
    images_a: Float[Array, "b h w 3"],
    images_b: Float[Array, "b h w 3"],
    prompted: Bool[Array, "b"],
    jitter: Jitter,
) -> tuple[Float32[Array, "b h w 3"], Float32[Array, "b h w 3"]]:
    """Applies jitter to both images of each pair.

    Args:
      keys: one RNG key per pair.
      images_a, images_b: in [-1, 1].
      prompted: whether a question about the pair quotes a prompt.
      jitter: strengths.

    Returns:
      Both images, float32, not clipped.
    """
    if not jitter:
        return images_a, images_b

    def one(
        key: PRNGKeyArray, pair: Float[Array, "2 h w 3"], prompted: Bool[Array, ""]
    ) -> Float32[Array, "2 h w 3"]:
        shift_key, strength_key, noise_key, negative_key = jax.random.split(key, 4)
        if jitter.negative:
            pair = _maybe_negative(negative_key, pair, prompted, jitter.negative)
        reach = jitter.shift
        if reach:
            starts = jax.random.randint(shift_key, (2, 2), 0, 2 * reach + 1)
            padded = jnp.pad(pair, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
            pair = jnp.stack(
                [
                    jax.lax.dynamic_slice(image, (*start, 0), pair.shape[1:])
                    for image, start in zip(padded, starts)
                ]
            )
        strength = jax.random.uniform(strength_key, maxval=jitter.noise)
        return pair + strength * jax.random.normal(noise_key, pair.shape)

    both = jax.vmap(one)(keys, jnp.stack([images_a, images_b], axis=1), prompted)
    return both[:, 0], both[:, 1]


def jitter_source(
    keys: Key[Array, "b"],
    source: Float[Array, "b h w 3"],
    prompted: Bool[Array, "b"],
    jitter: Jitter,
) -> Float32[Array, "b h w 3"]:
    """The source pictures of jittered pairs: negative where the pair is, otherwise untouched.

    The policy cannot change the source, so it needs no noise. Arguments as in `jitter_pairs`.
    """
    if not jitter.negative:
        return source
    turn = functools.partial(_maybe_negative, probability=jitter.negative)
    return jax.vmap(lambda key, *rest: turn(jax.random.split(key, 4)[3], *rest))(
        keys, source, prompted
    )


def _maybe_negative(
    key: PRNGKeyArray,
    images: Float[Array, "*n h w 3"],
    prompted: Bool[Array, ""],
    probability: float,
) -> Float[Array, "*n h w 3"]:
    """Inverts the brightness of images with `probability`, unless the pair has a prompt."""
    turned = jax.random.bernoulli(key, probability) & ~prompted
    brightness = jnp.mean(images, axis=-1, keepdims=True)
    return jnp.where(turned, images - 2.0 * brightness, images)
