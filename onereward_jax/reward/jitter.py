"""What may change in the pictures of a pair without changing which is better.

A judge that learned from few pairs has opinions on what it should not: on patterns too faint to
see, or on brightness as such, because most photographs it saw were dark. A policy that follows its
gradient learns just these. Trained and asked under jitter, the judge cannot have them: noise hides
the patterns, and where negatives are as common as positives, darker is no better than brighter. A
prompt is the exception, for a negative does not show the "dark blue" that it asks for.
Not in the paper, whose judge has seven billion weights and saw many more pairs.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Key, PRNGKeyArray


@dataclasses.dataclass(frozen=True)
class Jitter:
    """How much; zeros leave it out.

    Attributes:
      noise: most standard deviation of the Gaussian noise, for images in [-1, 1]; drawn evenly
        from 0 on, one for both images of a pair.
      shift: most pixels by which an image is moved, either way along either axis; each image has
        its own. What comes in from beyond the border repeats it.
      negative: how often both images have their brightness turned over, hues kept; never those
        that are compared with a prompt.

    Raises:
      ValueError: a field is negative, or a probability above 1.
    """

    noise: float = 0.0
    shift: int = 0
    negative: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"jitter.{field.name} is {getattr(self, field.name)}, below 0")
        if self.negative > 1:
            raise ValueError(f"jitter.negative is {self.negative}: a probability expected")

    def __bool__(self) -> bool:
        return self != Jitter()


def jitter_pairs(
    keys: Key[Array, "b"],
    images_a: Float[Array, "b h w 3"],
    images_b: Float[Array, "b h w 3"],
    prompted: Bool[Array, "b"],
    jitter: Jitter,
) -> tuple[Float32[Array, "b h w 3"], Float32[Array, "b h w 3"]]:
    """Both images of each pair as the judge is to see them.

    Args:
      keys: one for each pair.
      images_a, images_b: in [-1, 1].
      prompted: whether a question about the pair quotes a prompt.
      jitter: how much.
    """
    if not jitter:
        return images_a, images_b

    def one(
        key: PRNGKeyArray, pair: Float[Array, "2 h w 3"], prompted: Bool[Array, ""]
    ) -> Float32[Array, "2 h w 3"]:
        shift_key, strength_key, noise_key, negative_key = jax.random.split(key, 4)
        if jitter.negative:
            turned = jax.random.bernoulli(negative_key, jitter.negative) & ~prompted
            brightness = jnp.mean(pair, axis=-1, keepdims=True)
            pair = jnp.where(turned, pair - 2.0 * brightness, pair)
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
