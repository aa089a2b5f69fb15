"""The order of FLUX's tokens, and attention, where the mesh axis `context` shards the sequence.

Each of the c devices of a group has 1/c of the text and 1/c of the image. The joined sequence is in
the order text 1, image 1, text 2, image 2, ...: attention sees a set of tokens with positions, so
that any order gives the same values. Streams are joined and cut without moving a token. A cut
between all text and all image would not lie on the boundary of two devices; XLA's partitioner then
moves most tokens in each layer.

Single letters: b batch, l text tokens, n image tokens, s tokens of the joined sequence, h heads,
k channels of a head.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Num

from onereward_jax.models.attention import attention
from onereward_jax.models.attention.mesh_axes import batch_and_head_axes
from onereward_jax.models.layers import constrain
from onereward_jax.parallel import RULES

TOKENS = ("batch", "tokens", "act_embed")
TOKEN_HIDDEN = ("batch", "tokens", "act_mlp")
TOKEN_HEADS = ("batch", "tokens", "act_heads", None)

AXIS = dict(RULES)["tokens"]
"""The mesh axis of the tokens."""


@dataclasses.dataclass(frozen=True)
class TokenOrder:
    """Numbers of tokens, and of the devices that share them.

    With one part, nothing is padded and the order is text, image.

    Attributes:
      text, image: numbers of tokens, without padding.
      parts: size of the mesh axis `context`.
    """

    text: int
    image: int
    parts: int

    @classmethod
    def on_mesh(cls, text: int, image: int) -> TokenOrder:
        """The order on the current mesh."""
        return cls(text, image, dict(jax.sharding.get_abstract_mesh().shape).get(AXIS, 1))

    def pad(self, tokens: Num[Array, "..."], axis: int = 1) -> Num[Array, "..."]:
        """Adds zeros to a stream, up to a multiple of `parts`; they are no keys of attention."""
        missing = -tokens.shape[axis] % self.parts
        if not missing:
            return tokens
        return jnp.pad(tokens, [(0, missing if at == axis else 0) for at in range(tokens.ndim)])

    def join(
        self, text: Num[Array, "..."], image: Num[Array, "..."], axis: int = 1
    ) -> Num[Array, "..."]:
        """The joined sequence of two padded streams."""
        if self.parts == 1:
            return jnp.concatenate([text, image], axis=axis)
        before, after = text.shape[:axis], text.shape[axis + 1 :]
        streams = [one.reshape(*before, self.parts, -1, *after) for one in (text, image)]
        return jnp.concatenate(streams, axis=axis + 1).reshape(*before, -1, *after)

    def split(self, joined: Float[Array, "b s d"]) -> tuple[Array, Array]:
        """The inverse of `join`: (text, image), still padded."""
        if self.parts == 1:
            return joined[:, : self.text], joined[:, self.text :]
        batch, _, width = joined.shape
        shares = joined.reshape(batch, self.parts, -1, width)
        streams = shares[:, :, : self._text_share], shares[:, :, self._text_share :]
        text, image = (one.reshape(batch, -1, width) for one in streams)
        return constrain(text, TOKENS), constrain(image, TOKENS)

    def gather(self, image: Float[Array, "b m d"]) -> Float[Array, "b n d"]:
        """The image stream on every device of a group, without padding."""
        if self.parts == 1:
            return image
        # Gathered before the cut, as in `Modulation`.
        return constrain(image, ("batch", None, None))[:, : self.image]

    def attend(
        self, q: Float[Array, "b s h k"], k: Float[Array, "b s h k"], v: Float[Array, "b s h k"]
    ) -> Float[Array, "b s h k"]:
        """`attention` of the joined sequence; keys and values are all-gathered over `context`."""
        q, k, v = (constrain(x, TOKEN_HEADS) for x in (q, k, v))
        if self.parts == 1:
            return attention(q, k, v)
        batch, heads = batch_and_head_axes(q.shape[0], k.shape[2])
        spec = PartitionSpec(batch, AXIS, heads, None)

        def local(
            q: Float[Array, "b t h k"], k: Float[Array, "b t h k"], v: Float[Array, "b t h k"]
        ) -> Float[Array, "b t h k"]:
            return attention(q, *(self._keys(jax.lax.all_gather(x, AXIS, axis=1)) for x in (k, v)))

        return jax.shard_map(local, in_specs=spec, out_specs=spec, check_vma=False)(q, k, v)

    @property
    def _text_share(self) -> int:
        """Text tokens of a device."""
        return -(-self.text // self.parts)

    def _keys(self, shares: Float[Array, "b c t h k"]) -> Float[Array, "b s h k"]:
        """The tokens of all devices, without padding."""
        batch, _, _, *head = shares.shape
        if self.text % self.parts == 0 and self.image % self.parts == 0:
            return shares.reshape(batch, -1, *head)
        text = shares[:, :, : self._text_share].reshape(batch, -1, *head)[:, : self.text]
        image = shares[:, :, self._text_share :].reshape(batch, -1, *head)[:, : self.image]
        return jnp.concatenate([text, image], axis=1)
