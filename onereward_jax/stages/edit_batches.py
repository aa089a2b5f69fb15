"""Many edits of triplets: read, made and written at the same time, by every process its own.

Of a batch each process reads the triplets that its devices work on, and hands on the pictures that
only it has to write.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8

from onereward_jax.common.pixels import from_uint8
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.pipeline import same_size_parts
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import (
    HostLocalRow,
    MeshFunction,
    host_local_rows,
    local_rows,
    shard_batch,
)
from onereward_jax.policy import FillPolicy, PolicyParams, PromptEmbeds, TextCache, sigma_table
from onereward_jax.policy.generate import EditBatch, make_generate
from onereward_jax.stages.io_pipeline import overlapped

Saved = TypeVar("Saved")
TripletKey = tuple[int, int]
"""The same for equal triplets of one data set."""


@dataclasses.dataclass(frozen=True)
class Edit:
    """A picture to be made: the triplet, and the settings.

    Attributes:
      triplets, row: where the triplet is.
      num_steps, strength: as in `FillPolicy.sigmas`.
      guidance_scale, true_cfg_scale, negative_prompt, noise_seed: as in `EditBatch`.
    """

    triplets: Triplets
    row: int
    num_steps: int
    guidance_scale: float
    true_cfg_scale: float
    negative_prompt: str
    noise_seed: int
    strength: float = 1.0

    @property
    def triplet(self) -> TripletKey:
        """Which triplet it is."""
        return id(self.triplets), self.row

    @property
    def size(self) -> Size:
        """Height and width."""
        height, width = self.triplets.sizes[self.row]
        return int(height), int(width)

    @property
    def guided(self) -> bool:
        """Whether it takes two forwards a step."""
        return self.true_cfg_scale != 1.0


class Source(NamedTuple):
    """What is read of a triplet.

    Attributes:
      image, mask: as stored; of the mask, 128 and more is to be edited.
      embeds: of its prompt, with an axis of one sample.
    """

    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w 1"]
    embeds: PromptEmbeds


Save = Callable[[int, Source, UInt8[np.ndarray, "h w 3"]], Saved]
"""Writes a picture, given its number. Called in threads, for each picture in one process."""


class Made(NamedTuple):
    """A picture on its way from the devices to `Save`."""

    number: int
    source: Source
    picture: HostLocalRow


@dataclasses.dataclass(frozen=True)
class PictureMaker:
    """Makes pictures with an editor, whose weights may change from call to call.

    Attributes:
      editor, mesh: who makes them, and on which devices.
      cache: of the prompts.
      batch_size: pictures of one call of the editor.
      most_steps: the longest edit that there may be.
    """

    editor: FillPolicy
    mesh: Mesh
    cache: TextCache
    batch_size: int
    most_steps: int
    _compiled: dict[tuple[Size, bool], MeshFunction] = dataclasses.field(
        default_factory=dict, init=False
    )

    def make(
        self, params: PolicyParams, edits: Sequence[Edit], save: Save
    ) -> Iterator[tuple[int, list[tuple[int, Saved]]]]:
        """Makes the pictures of `edits`, size by size and in order; all processes do so alike.

        Those without true guidance have batches of their own, at half of the operations.

        Batches cost as many steps as their longest edit: put like to like. The last one of a size
        is filled up with repetitions. A triplet with several edits in a batch is read once; its
        latents are encoded for each of them, which is 0.2 % of an edit's operations for FLUX.1-Fill
        at 1024 x 1024 and 27 steps: less than batches of one triplet's edits would cost.

        Args:
          params: of the editor.
          edits: what to make.
          save: see `Save`; a number is the place in `edits`.

        Yields:
          Of each batch how many pictures it has in all processes, and the numbers of those that
          this one has saved, with what `save` gave.

        Raises:
          Exception: see `overlapped`.
          ValueError: a prompt is not in the cache.
        """
        sizes = np.array([(*edit.size, edit.guided) for edit in edits], np.int32).reshape(-1, 3)
        parts = list(same_size_parts(sizes, np.arange(len(edits)), self.batch_size))
        here = local_rows(self.batch_size, self.mesh)
        own = [[edits[part[min(row, len(part) - 1)]] for row in here.tolist()] for part in parts]
        negatives = {one: self.cache.lookup([one]) for one in {e.negative_prompt for e in edits}}

        def compute(number: int, found: Sequence[Source]) -> Iterator[Made]:
            part = [int(one) for one in parts[number]]
            sources = dict(zip(_by_triplet(own[number]), found, strict=True))
            steps = max(len(self._sigmas(edits[one])) for one in part) - 1
            batch = self._batch(own[number], sources, negatives)
            made = self._generate(edits[part[0]])(
                params, shard_batch(batch, self.mesh), np.int32(steps)
            )
            for picture in host_local_rows(made):
                if picture.row < len(part):
                    one = part[picture.row]
                    yield Made(one, sources[edits[one].triplet], picture)

        def write(made: Made) -> tuple[int, Saved]:
            return made.number, save(made.number, made.source, made.picture.fetch())

        wanted = (list(_by_triplet(part).values()) for part in own)
        for part, saved in zip(parts, overlapped(wanted, self._read, compute, write)):
            yield len(part), saved

    def _read(self, edit: Edit) -> Source:
        example = edit.triplets.read(edit.row, ("image", "mask", "prompt"))
        return Source(example["image"], example["mask"], self.cache.lookup([example["prompt"]]))

    def _batch(
        self,
        edits: Sequence[Edit],
        found: Mapping[TripletKey, Source],
        negatives: Mapping[str, PromptEmbeds],
    ) -> EditBatch:
        """The samples of this process."""
        sources = [found[edit.triplet] for edit in edits]
        return EditBatch(
            image=np.stack([from_uint8(source.image) for source in sources]),
            mask=np.stack([np.float32(source.mask >= 128) for source in sources]),
            embeds=_joined([source.embeds for source in sources]),
            negative_embeds=_joined([negatives[edit.negative_prompt] for edit in edits]),
            sigmas=sigma_table([self._sigmas(edit) for edit in edits], self.most_steps + 1),
            guidance_scale=np.float32([edit.guidance_scale for edit in edits]),
            true_cfg_scale=np.float32([edit.true_cfg_scale for edit in edits]),
            noise_seed=np.int32([edit.noise_seed for edit in edits]),
        )

    def _generate(self, edit: Edit) -> MeshFunction:
        kind = edit.size, edit.guided
        if kind not in self._compiled:
            self._compiled[kind] = make_generate(
                self.editor, edit.size, self.mesh, guided=edit.guided
            )
        return self._compiled[kind]

    def _sigmas(self, edit: Edit) -> np.ndarray:
        return self.editor.sigmas(edit.num_steps, edit.size, edit.strength)


def _by_triplet(edits: Sequence[Edit]) -> dict[TripletKey, Edit]:
    """An edit of each triplet."""
    return {edit.triplet: edit for edit in edits}


def _joined(embeds: Sequence[PromptEmbeds]) -> PromptEmbeds:
    return PromptEmbeds(*(np.concatenate(parts) for parts in zip(*embeds, strict=True)))
