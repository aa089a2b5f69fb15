"""Generates many edits: reading, sampling and writing overlap, sharded over processes.

Each process reads the triplets of its own devices, and writes the images that only it owns.
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
"""Identifies a triplet of a data set."""


@dataclasses.dataclass(frozen=True)
class Edit:
    """An edit to generate: the triplet, and the settings.

    Attributes:
      triplets, row: the triplet.
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
        """Identifies the triplet."""
        return id(self.triplets), self.row

    @property
    def size(self) -> Size:
        """Height and width."""
        height, width = self.triplets.sizes[self.row]
        return int(height), int(width)

    @property
    def guided(self) -> bool:
        """Whether it uses true CFG, two forward passes per step."""
        return self.true_cfg_scale != 1.0


class Source(NamedTuple):
    """The inputs of an edit, read from a triplet.

    Attributes:
      image, mask: as stored; mask: >= 128 is edited.
      embeds: prompt embeddings, with a batch axis of size 1.
    """

    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w 1"]
    embeds: PromptEmbeds


Save = Callable[[int, Source, UInt8[np.ndarray, "h w 3"]], Saved]
"""(index, source, pixels) -> result: writes an image. Called in threads, once per image overall."""


class Made(NamedTuple):
    """An image on its way from the devices to `Save`."""

    number: int
    source: Source
    picture: HostLocalRow


@dataclasses.dataclass(frozen=True)
class PictureMaker:
    """Generates images with an editor, whose weights are an argument.

    Attributes:
      editor, mesh: the editor and the mesh.
      cache: cache of the prompt embeddings.
      batch_size: global batch size.
      most_steps: maximum number of sampling steps.
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
        """Generates the images of `edits`, grouped by size, in order; all processes must call it.

        Edits without true CFG have separate batches, at half the FLOPs.

        A batch takes as many steps as its longest edit: sort edits by steps. The last batch of a
        size is padded. A triplet with multiple edits in a batch is read once; its latents are
        encoded for each of them, 0.2 % of an edit's FLOPs for FLUX.1-Fill at 1024 x 1024 and 27
        steps: less than batches per triplet would cost.

        Args:
          params: weights of the editor.
          edits: the edits.
          save: see `Save`; its index is that in `edits`.

        Yields:
          For each batch the global number of its images, and pairs (index, result of `save`) of
          those that this process saved.

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

        unique = (list(_by_triplet(part).values()) for part in own)
        for part, saved in zip(parts, overlapped(unique, self._read, compute, write)):
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
        """The host-local batch."""
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
        key = edit.size, edit.guided
        if key not in self._compiled:
            self._compiled[key] = make_generate(
                self.editor, edit.size, self.mesh, guided=edit.guided
            )
        return self._compiled[key]

    def _sigmas(self, edit: Edit) -> np.ndarray:
        return self.editor.sigmas(edit.num_steps, edit.size, edit.strength)


def _by_triplet(edits: Sequence[Edit]) -> dict[TripletKey, Edit]:
    """One edit of each triplet."""
    return {edit.triplet: edit for edit in edits}


def _joined(embeds: Sequence[PromptEmbeds]) -> PromptEmbeds:
    return PromptEmbeds(*(np.concatenate(parts) for parts in zip(*embeds, strict=True)))
