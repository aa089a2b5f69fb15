"""The reward model's answers: log P("Yes") and log P("No") for two images and all dimensions.

The images, and the source picture if the judge sees it, are the same for all dimensions of a task.
So the vision tower runs once per image, and the language model once over [prefix | suffix of
dimension 1 | suffix of dimension 2 | ...], where a suffix attends only to the prefix and itself.
`score_plain` runs every question separately and returns the same values.

A scalar judge sees one result at a time (`QueryTemplate.pictures` is 1). Its reward r of a result
is the logit of "Yes" minus that of "No"; by Bradley-Terry's model (ImageReward, arXiv 2304.05977,
Eq. 1) image a is better than image b with probability σ(r(a) - r(b)).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from onereward_jax.models.qwen2_5_vl import (
    Grid,
    Qwen2_5_VL,
    image_position_ids,
    place_images,
)
from onereward_jax.models.weights import variables
from onereward_jax.reward.image_preprocess import ImageProcessor
from onereward_jax.reward.judge_view import WHOLE, JudgeView, cropped, source_picture
from onereward_jax.reward.query import QueryBatch, QueryLayout
from onereward_jax.reward.suffix_packing import PackedSuffixes, pack

PyTree = Any
Answers = tuple[Float32[Array, "... e"], Float32[Array, "... e"]]


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A pairwise judge, without its parameters; static.

    Attributes:
      model: the vision-language model.
      processor: its image preprocessing.
      layout: static sizes of its queries, from `QueryTokenizer`.
      answers_only: normalize over {Yes, No} instead of the whole vocabulary.
      view: what it sees of the images.
    """

    model: Qwen2_5_VL
    processor: ImageProcessor
    layout: QueryLayout
    answers_only: bool = False
    view: JudgeView = WHOLE

    @property
    def is_scalar(self) -> bool:
        """Whether it is a scalar judge, which sees one result at a time."""
        return self.layout.pictures == 1

    def score(
        self,
        params: PyTree,
        images_a: Float[Array, "b h w 3"],
        images_b: Float[Array, "b h w 3"],
        queries: QueryBatch,
    ) -> Answers:
        """(log P("Yes"), log P("No")) to "is image a better than image b?".

        The first image has its own call of the vision tower, so that RL runs no backward pass for
        the reference image and the source.

        Args:
          params: weights of the model, see `models.weights`.
          images_a, images_b: in [-1, 1].
          queries: questions; where `queries.dimension_mask` is False, the answer is undefined. With
            what `view` needs.

        Returns:
          Two arrays [b, e].

        Raises:
          ValueError: images or queries do not match the layout.
        """
        *source, image_a, image_b = self.patches(images_a, images_b, queries)
        grid = self.processor.grid(*images_a.shape[1:3])
        fixed = jnp.stack([*source, image_b], axis=1)

        def answer(model: Qwen2_5_VL) -> Answers:
            first = model.image_tokens(image_a, grid)
            *source, second = _tokens_of_each(model, fixed, grid)
            if self.is_scalar:
                # A pass for each, so that RL runs no backward pass for the reference image.
                seen = ([*source, first], [*source, second])
                ends = [_at_the_end(*self._hidden(model, one, queries, grid)) for one in seen]
                return _bradley_terry(*(self._rewards(model, one) for one in ends))
            tokens = [*source, first, second]
            hidden, suffixes = self._hidden(model, tokens, queries, grid)
            return self._log_probabilities(model, _at_the_end(hidden, suffixes))

        return self.model.apply(variables(params), method=answer)

    def score_both_orders(
        self,
        params: PyTree,
        images_a: Float[Array, "b h w 3"],
        images_b: Float[Array, "b h w 3"],
        queries: QueryBatch,
    ) -> Answers:
        """`score` of (a, b) and of (b, a), with every image encoded once; arguments as in `score`.

        The first image has its own call of the vision tower, as in `score`.

        Returns:
          Log-probabilities [b, 2, e]: 0 is image a first, 1 is image b first.
        """
        if self.is_scalar:
            yes, no = self.score(params, images_a, images_b, queries)
            return jnp.stack([yes, no], axis=1), jnp.stack([no, yes], axis=1)
        *source, image_a, image_b = self.patches(images_a, images_b, queries)
        grid = self.processor.grid(*images_a.shape[1:3])
        fixed = jnp.stack([*source, image_b], axis=1)

        def answer(model: Qwen2_5_VL) -> Answers:
            first = model.image_tokens(image_a, grid)
            ordered = _both_orders(first, _tokens_of_each(model, fixed, grid))
            hidden, suffixes = self._hidden(model, ordered, _twice(queries), grid)
            return self._log_probabilities(model, _at_the_end(hidden, suffixes))

        yes, no = self.model.apply(variables(params), method=answer)
        return yes.reshape(-1, 2, yes.shape[-1]), no.reshape(-1, 2, no.shape[-1])

    def score_both_orders_and_words(
        self,
        params: PyTree,
        images_a: Float[Array, "b h w 3"],
        images_b: Float[Array, "b h w 3"],
        queries: QueryBatch,
    ) -> tuple[Float32[Array, "b 2 e"], Float32[Array, "b 2 e"], Float32[Array, "b 2"]]:
        """`score_both_orders`, and the language-modelling log-likelihood of the suffix tokens.

        Returns:
          log P("Yes") and log P("No") as in `score_both_orders`; mean log-likelihood of a suffix
          token given all before it, without the first token of each suffix.
        """
        patches = jnp.stack(self.patches(images_a, images_b, queries), axis=1)
        grid = self.processor.grid(*images_a.shape[1:3])

        def answer(model: Qwen2_5_VL) -> tuple[Answers, Float32[Array, "b"]]:
            *source, first, second = _tokens_of_each(model, patches, grid)
            # A scalar judge sees the first of each order.
            ordered = _both_orders(first, [*source, second])[: len(self.layout.image_starts)]
            hidden, suffixes = self._hidden(model, ordered, _twice(queries), grid)
            ends = _at_the_end(hidden, suffixes)
            if self.is_scalar:
                rewards = self._rewards(model, ends)
                others = rewards.reshape(-1, 2, rewards.shape[-1])[:, ::-1].reshape(rewards.shape)
                answers = _bradley_terry(rewards, others)
            else:
                answers = self._log_probabilities(model, ends)
            return answers, _token_log_likelihoods(model.logits(hidden), suffixes)

        (yes, no), words = self.model.apply(variables(params), method=answer)
        dimensions = yes.shape[-1]
        return yes.reshape(-1, 2, dimensions), no.reshape(-1, 2, dimensions), words.reshape(-1, 2)

    def score_plain(
        self,
        params: PyTree,
        images_a: Float[Array, "b h w 3"],
        images_b: Float[Array, "b h w 3"],
        queries: QueryBatch,
    ) -> Answers:
        """`score` with a separate sequence, including the images, for every question.

        The reference implementation in tests of the shared computation.
        """
        *source, image_a, image_b = self.patches(images_a, images_b, queries)
        grid = self.processor.grid(*images_a.shape[1:3])
        batch, dimensions, suffix_length = queries.suffix.shape
        prefix = jnp.repeat(jnp.asarray(queries.prefix), dimensions, axis=0)
        ids = jnp.concatenate([prefix, queries.suffix.reshape(-1, suffix_length)], axis=1)
        suffix_mask = queries.suffix_mask.reshape(-1, suffix_length)
        real = jnp.concatenate([prefix != self.layout.pad_id, suffix_mask], axis=1)
        # Move the prefix's padding to the end of the sequence.
        ids = jnp.take_along_axis(ids, jnp.argsort(~real, axis=1, stable=True), axis=1)
        last = jnp.sum(real, axis=1) - 1

        def logits(*images: Float32[Array, "b n p"]) -> Float32[Array, "b e v"]:
            patches = jnp.repeat(jnp.stack(images, axis=1), dimensions, axis=0)
            starts = self.layout.image_starts
            found = self.model.apply(variables(params), ids, patches, grid, starts)
            answer = jnp.take_along_axis(found, last[:, None, None], axis=1)
            return answer.reshape(batch, dimensions, -1)

        yes, no = self.layout.yes_id, self.layout.no_id
        if self.is_scalar:
            found = [logits(*source, image) for image in (image_a, image_b)]
            return _bradley_terry(*(one[..., yes] - one[..., no] for one in found))
        answer = logits(*source, image_a, image_b)
        if self.answers_only:
            log_p = jax.nn.log_softmax(answer[..., [yes, no]])
            return log_p[..., 0], log_p[..., 1]
        log_p = jax.nn.log_softmax(answer)
        return log_p[..., yes], log_p[..., no]

    def patches(
        self,
        images_a: Float[Array, "b h w 3"],
        images_b: Float[Array, "b h w 3"],
        queries: QueryBatch,
    ) -> list[Float32[Array, "b n p"]]:
        """Patches of all that the judge sees: the source if it does, then both images.

        Raises:
          ValueError: as `score`, or the queries lack what `view` needs.
        """
        self._check(images_a, images_b, queries)
        images, view = [images_a, images_b], self.view
        for name in view.needed:
            if getattr(queries, name) is None:
                raise ValueError(f"the judge sees {view.sees}: the queries have no {name}")
        if view.source:
            edit = jnp.asarray(queries.source), jnp.asarray(queries.mask, jnp.float32)
            images.insert(0, source_picture(*edit, view.source))
        if view.crop:
            box = jnp.asarray(queries.box)
            images = [cropped(image, box) for image in images]
        return [self.processor(image) for image in images]

    def _check(
        self,
        images_a: Float[Array, "b h w 3"],
        images_b: Float[Array, "b h w 3"],
        queries: QueryBatch,
    ) -> None:
        layout = self.layout
        if images_a.shape != images_b.shape:
            raise ValueError(f"images of a pair differ: {images_a.shape} and {images_b.shape}")
        tokens = self.processor.tokens_per_image(*images_a.shape[1:3])
        if tokens != layout.tokens_per_image:
            raise ValueError(
                f"an image of {images_a.shape[1]} x {images_a.shape[2]} has {tokens} tokens, but "
                f"the queries are made for {layout.tokens_per_image}"
            )
        lengths = (queries.prefix.shape[-1], queries.suffix.shape[-1])
        if lengths != (layout.prefix_length, layout.suffix_length):
            raise ValueError(
                f"queries have {lengths} (prefix, suffix) tokens, but the layout has "
                f"{(layout.prefix_length, layout.suffix_length)}"
            )

    def _hidden(
        self,
        model: Qwen2_5_VL,
        tokens: Sequence[Float[Array, "b m c"]],
        queries: QueryBatch,
        grid: Grid,
    ) -> tuple[Float[Array, "b s c"], PackedSuffixes]:
        """Hidden states of the packed suffix tokens, and the packed suffixes."""
        prefix = jnp.asarray(queries.prefix)
        real_prefix = prefix != self.layout.pad_id
        suffixes = pack(queries, self.layout.packed_length)
        embeds = model.embed(jnp.concatenate([prefix, suffixes.ids], axis=1))
        hidden = model.decode(
            place_images(embeds, tokens, self.layout.image_starts),
            self._position_ids(real_prefix, suffixes, grid),
            suffixes.mask(real_prefix),
        )
        return hidden[:, self.layout.prefix_length :], suffixes

    def _position_ids(
        self, real_prefix: Bool[Array, "b lp"], suffixes: PackedSuffixes, grid: Grid
    ) -> Int[Array, "3 b n"]:
        """Positions of the packed sequence: every suffix starts where the real prefix ends."""
        layout, batch = self.layout, real_prefix.shape[0]
        starts, merge = layout.image_starts, self.processor.merge_size
        grids = [grid] * len(starts)
        prefix = image_position_ids(layout.prefix_length, starts, grids, merge)
        padding = layout.prefix_length - jnp.sum(real_prefix, axis=1)
        suffix = prefix[0, -1] + 1 - padding[:, None] + suffixes.offset
        parts = (
            jnp.broadcast_to(prefix[:, None], (3, batch, layout.prefix_length)),
            jnp.broadcast_to(suffix, (3, *suffix.shape)),
        )
        return jnp.concatenate(parts, axis=-1)

    def _rewards(self, model: Qwen2_5_VL, hidden: Float[Array, "b e c"]) -> Float32[Array, "b e"]:
        """r of one result: the logit of "Yes" minus that of "No"."""
        logits = model.logits(hidden, (self.layout.yes_id, self.layout.no_id))
        return logits[..., 0] - logits[..., 1]

    def _log_probabilities(self, model: Qwen2_5_VL, hidden: Float[Array, "b e c"]) -> Answers:
        """Float32 log-probabilities of the two answers."""
        answers = (self.layout.yes_id, self.layout.no_id)
        if self.answers_only:
            log_p = jax.nn.log_softmax(model.logits(hidden, answers))
            return log_p[..., 0], log_p[..., 1]
        logits = model.logits(hidden)
        total = jax.nn.logsumexp(logits, axis=-1)
        return logits[..., answers[0]] - total, logits[..., answers[1]] - total


def _tokens_of_each(
    model: Qwen2_5_VL, patches: Float[Array, "b i n p"], grid: Grid
) -> list[Float[Array, "b m c"]]:
    """Tokens of the i images of each sample, from one call of the vision tower.

    Images of a sample are adjacent in the batch, so that they stay on one device.
    """
    tokens = model.image_tokens(patches.reshape(-1, *patches.shape[2:]), grid)
    return list(jnp.unstack(tokens.reshape(*patches.shape[:2], *tokens.shape[1:]), axis=1))


def _both_orders(
    first: Float[Array, "b m c"], others: Sequence[Float[Array, "b m c"]]
) -> list[Float[Array, "twice m c"]]:
    """Tokens of each place of the query for (a, b) and (b, a); `others` ends with image b.

    Both orders of a pair are adjacent in the batch, so that they stay on one device.
    """
    *source, second = others
    places = (*((one, one) for one in source), (first, second), (second, first))
    return [jnp.stack(both, axis=1).reshape(-1, *first.shape[1:]) for both in places]


def _twice(queries: QueryBatch) -> QueryBatch:
    """The texts of the queries for both orders."""
    texts = queries._replace(box=None, source=None, mask=None)
    return jax.tree.map(lambda ids: jnp.repeat(ids, 2, axis=0), texts)


def _bradley_terry(first: Float32[Array, "b e"], second: Float32[Array, "b e"]) -> Answers:
    """log σ(r(a) - r(b)) and log σ(r(b) - r(a))."""
    return jax.nn.log_sigmoid(first - second), jax.nn.log_sigmoid(second - first)


def _at_the_end(hidden: Float[Array, "b s c"], suffixes: PackedSuffixes) -> Float[Array, "b e c"]:
    """Hidden state at the last real token of every suffix: where the answer begins."""
    return jnp.take_along_axis(hidden, suffixes.last[:, :, None], axis=1)


def _token_log_likelihoods(
    logits: Float32[Array, "b s v"], suffixes: PackedSuffixes
) -> Float32[Array, "b"]:
    """Mean log-likelihood of the suffix tokens, without the first of each suffix."""
    log_p = jax.nn.log_softmax(logits[:, :-1])
    found = jnp.take_along_axis(log_p, suffixes.ids[:, 1:, None], axis=-1)[..., 0]
    real = jnp.arange(1, suffixes.ids.shape[1]) <= suffixes.last.max(axis=1, keepdims=True)
    follows = real & (suffixes.offset[:, 1:] > 0)
    return jnp.sum(jnp.where(follows, found, 0.0), axis=1) / jnp.maximum(follows.sum(axis=1), 1)
