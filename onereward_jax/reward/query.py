"""The query Φ(s_k, e, P) to the judge (Section 3, stage 2) as token ids.

Text around the images in Qwen's chat format: two results, before them the source picture if the
judge sees it (`JudgeView`). Everything that does not depend on the dimension comes first (the
*prefix*: system message, images, task), the dimension's words last (the *suffix*), so that the
prefix is computed once for all dimensions. Only text alignment quotes the prompt P. The wording
comes from a `QueryTemplate`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from onereward_jax.convert import Tokenizer
from onereward_jax.reward.judge_view import WHOLE, JudgeView
from onereward_jax.reward.query_template import IMAGE, IMAGE_TOKEN, QueryTemplate, packaged_template
from onereward_jax.tasks import DIMENSIONS, MAX_DIMENSIONS, TASKS, Dimension, Task

PAD_TOKEN = "<|endoftext|>"
SPECIAL_TOKENS = (
    PAD_TOKEN,
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    IMAGE_TOKEN,
)
IMAGE_MARKERS = 2  # control tokens around an image, one on each side


class QueryBatch(NamedTuple):
    """Token ids of queries, for `Scorer.score`.

    Attributes:
      prefix: everything before the dimension's words, including image placeholders; padded on the
        right.
      suffix: one per dimension, padded on the right.
      suffix_mask: True at real tokens; a dimension without real tokens is not asked.
      box: (y0, x0, y1, x1) of the part of all images that the judge sees, if its `JudgeView` crops.
      source, mask: the source picture in [-1, 1], and 1 where it is edited, if it sees the source.
    """

    prefix: Int[Array | np.ndarray, "b lp"]
    suffix: Int[Array | np.ndarray, "b e ls"]
    suffix_mask: Bool[Array | np.ndarray, "b e ls"]
    box: Int[Array | np.ndarray, "b 4"] | None = None
    source: Float[Array | np.ndarray, "b h w 3"] | None = None
    mask: Float[Array | np.ndarray, "b h w 1"] | None = None

    @property
    def dimension_mask(self) -> Bool[Array | np.ndarray, "b e"]:
        """True where a question is asked."""
        return self.suffix_mask.any(axis=-1)


def queries_in(batch: Mapping[str, Any]) -> QueryBatch:
    """The queries in a batch of pairs or of RL: its fields `query_<field of QueryBatch>`."""
    return QueryBatch(*(batch.get(f"query_{name}") for name in QueryBatch._fields))


@dataclasses.dataclass(frozen=True)
class QueryLayout:
    """Static sizes of the queries of one tokenizer, for the scorer.

    Attributes:
      prefix_length, suffix_length: tokens, including padding.
      packed_length: maximum number of real suffix tokens of a sample, over all dimensions.
      image_starts: index of each image's first placeholder in the prefix.
      tokens_per_image: placeholders per image.
      pictures: compared pictures, 2; or 1 for a scalar judge.
      pad_id, yes_id, no_id: token ids.
    """

    prefix_length: int
    suffix_length: int
    packed_length: int
    image_starts: tuple[int, ...]
    tokens_per_image: int
    pad_id: int
    yes_id: int
    no_id: int
    pictures: int = 2


@dataclasses.dataclass(frozen=True)
class QueryTokenCounts:
    """Token counts of the template's texts with one tokenizer, without any prompt.

    They determine a `QueryLayout` without the tokenizer, see `judge_loader.COUNTS_FILE`.

    Attributes:
      head: tokens before the first image.
      task: tokens after the images, per task.
      suffix: tokens of the question, per dimension.
      pad_id, yes_id, no_id: token ids.
      source: tokens before and after the source picture, by the way it is shown.
    """

    head: int
    task: Mapping[Task, int]
    suffix: Mapping[Dimension, int]
    pad_id: int
    yes_id: int
    no_id: int
    source: Mapping[str, tuple[int, int]]

    def layout(
        self, tokens_per_image: int, suffix_length: int, source: str = "", pictures: int = 2
    ) -> QueryLayout:
        """The layout of queries with room for prompts.

        Args:
          tokens_per_image, suffix_length: as in `QueryTokenizer`.
          source: see `JudgeView.source`.
          pictures: see `QueryTemplate`.
        """
        before_images = [self.head]
        if source:
            before, after = self.source[source]
            before_images = [self.head + before, after]
        starts, end = [], 0
        for text in (*before_images, *[0] * (pictures - 1)):
            starts.append(end + text + IMAGE_MARKERS // 2)
            end += text + tokens_per_image + IMAGE_MARKERS
        return QueryLayout(
            prefix_length=end + max(self.task.values()),
            suffix_length=suffix_length,
            packed_length=max(self._longest(task, suffix_length) for task in TASKS),
            image_starts=tuple(starts),
            tokens_per_image=tokens_per_image,
            pad_id=self.pad_id,
            yes_id=self.yes_id,
            no_id=self.no_id,
            pictures=pictures,
        )

    def _longest(self, task: Task, suffix_length: int) -> int:
        """Suffix tokens of a task's dimensions with a prompt of maximum length."""
        return sum(
            suffix_length if dimension is Dimension.TEXT_ALIGNMENT else self.suffix[dimension]
            for dimension in DIMENSIONS[task]
        )


class QueryTokenizer:
    """Queries as padded token ids, on the host.

    Attributes:
      layout: static sizes of all its batches.
      template: the wording, as `view` needs it.
      view: what else the judge sees; its inputs are added to the batches by the caller.
      cut_prompts: whether prompts that do not fit are truncated.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tokens_per_image: int,
        suffix_length: int = 64,
        *,
        template: QueryTemplate | None = None,
        view: JudgeView = WHOLE,
        cut_prompts: bool = False,
    ) -> None:
        """Looks up the control tokens and the answers.

        Args:
          tokenizer: the judge's tokenizer.
          tokens_per_image: see `ImageProcessor.tokens_per_image`.
          suffix_length: tokens for a dimension's words including a quoted prompt.
          template: the wording; None: the default template.
          view: see `JudgeView`.
          cut_prompts: truncate prompts that do not fit with `fitted`, instead of raising.

        Raises:
          ValueError: a control token or an answer is not one token of this tokenizer, or
            `suffix_length` is too short even without a prompt.
        """
        template = packaged_template() if template is None else template
        self.template = template.showing(view.source)
        self.view = view
        self._tokenizer = tokenizer
        self._suffix_length = suffix_length
        self.cut_prompts = cut_prompts
        known = {token: self._single(token) for token in (*SPECIAL_TOKENS, *self.template.answers)}
        controls = {*SPECIAL_TOKENS, *(t for t in tokenizer.get_added_vocab() if t.startswith("<"))}
        # Longest first, because one may be a prefix of another.
        self._control = re.compile("|".join(map(re.escape, sorted(controls, key=len)[::-1])))
        image = self._ids(IMAGE.format(image=IMAGE_TOKEN * tokens_per_image))
        before = [self._ids(text) for text in self.template.before_images()]
        head = [token for text in before for token in (*text, *image)]
        texts = {task: self._ids(self.template.task_text(task)) for task in TASKS}
        self._tasks = {task: head + ids for task, ids in texts.items()}
        first = len(self._ids(self.template.head))
        counts = QueryTokenCounts(
            head=first,
            source={view.source: (len(before[0]) - first, len(before[1]))} if view.source else {},
            task={task: len(ids) for task, ids in texts.items()},
            suffix={dimension: len(self._suffix(dimension, "")) for dimension in Dimension},
            pad_id=known[PAD_TOKEN],
            yes_id=known[self.template.answers[0]],
            no_id=known[self.template.answers[1]],
        )
        pictures = self.template.pictures
        self.layout = counts.layout(tokens_per_image, suffix_length, view.source, pictures)

    def encode(self, tasks: Sequence[Task], prompts: Sequence[str]) -> QueryBatch:
        """Questions for all dimensions of each sample's task, padded to MAX_DIMENSIONS.

        Args:
          tasks: s_k of each sample.
          prompts: P of each sample.

        Raises:
          ValueError: a prompt is too long or contains a control token.
        """
        dimensions = [DIMENSIONS[Task(task)] for task in tasks]
        return self._batch(tasks, dimensions, prompts, MAX_DIMENSIONS)

    def encode_dimensions(
        self, tasks: Sequence[Task], dimensions: Sequence[Dimension], prompts: Sequence[str]
    ) -> QueryBatch:
        """One question per sample, for preference pairs; the dimension axis has size 1.

        Raises:
          ValueError: as `encode`, or a task does not have the dimension.
        """
        for task, dimension in zip(tasks, dimensions, strict=True):
            if dimension not in DIMENSIONS[Task(task)]:
                raise ValueError(f"dimension {dimension!r} is not judged for task {task!r}")
        return self._batch(tasks, [(Dimension(e),) for e in dimensions], prompts, 1)

    def _batch(
        self,
        tasks: Sequence[Task],
        dimensions: Sequence[tuple[Dimension, ...]],
        prompts: Sequence[str],
        size: int,
    ) -> QueryBatch:
        layout = self.layout
        prefix = np.full((len(tasks), layout.prefix_length), layout.pad_id, np.int32)
        suffix = np.full((len(tasks), size, layout.suffix_length), layout.pad_id, np.int32)
        mask = np.zeros(suffix.shape, bool)
        for row, (task, asked, prompt) in enumerate(zip(tasks, dimensions, prompts, strict=True)):
            ids = self._tasks[Task(task)]
            prefix[row, : len(ids)] = ids
            for column, dimension in enumerate(asked):
                ids = self._suffix(dimension, prompt)
                suffix[row, column, : len(ids)] = ids
                mask[row, column, : len(ids)] = True
        return QueryBatch(prefix, suffix, mask)

    def unfit(self, prompt: str) -> str:
        """Why the prompt cannot be quoted unchanged; "" if it can."""
        if found := self._control.search(prompt):
            return f"it contains the control token {found[0]}"
        length = len(self._quoting(prompt))
        if length > self._suffix_length:
            room = self._suffix_length - len(self._quoting(""))
            return (
                f"it takes {length - len(self._quoting(''))} tokens where there is room for {room} "
                f"(suffix_length {self._suffix_length})"
            )
        return ""

    def fitted(self, prompt: str) -> str:
        """The prompt without control tokens, truncated to the tokens that fit."""
        while self._control.search(prompt):  # removing one may create another
            prompt = self._control.sub(" ", prompt)
        ids = self._ids(prompt)
        kept = len(ids)
        while (excess := len(self._quoting(prompt)) - self._suffix_length) > 0:
            kept = max(kept - excess, 0)
            # a multi-byte character may be cut in two
            prompt = self._tokenizer.decode(ids[:kept]).rstrip("\ufffd ")
        return prompt

    def _quoting(self, prompt: str) -> list[int]:
        """Token ids of the text alignment question, which quotes the prompt."""
        return self._ids(self.template.suffix_text(Dimension.TEXT_ALIGNMENT, prompt))

    def _suffix(self, dimension: Dimension, prompt: str) -> list[int]:
        if dimension is Dimension.TEXT_ALIGNMENT:
            if self.cut_prompts:
                prompt = self.fitted(prompt)
            elif prompt and (reason := self.unfit(prompt)):
                raise ValueError(f"the judge cannot be asked about the prompt {prompt!r}: {reason}")
        ids = self._ids(self.template.suffix_text(dimension, prompt))
        if len(ids) > self._suffix_length:
            raise ValueError(
                f"the words for {dimension.title} have {len(ids)} tokens, more than suffix_length "
                f"{self._suffix_length}"
            )
        return ids

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _single(self, token: str) -> int:
        ids = self._ids(token)
        # An unknown word may map to a single unknown token.
        if len(ids) != 1 or self._tokenizer.convert_ids_to_tokens(ids[0]) != token:
            raise ValueError(f"{token!r} is not a single token of the judge's tokenizer: {ids}")
        return ids[0]
