"""Images damaged in one dimension: training data of the base judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Array, Float32, UInt8
from PIL import Image, ImageFilter
from safetensors.numpy import load_file, save

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.pixels import from_uint8
from onereward_jax.mini.world import Scene, describe_colour, make_scene, prompt_colour, prompts
from onereward_jax.parallel.progress import progress_bar
from onereward_jax.tasks import DIMENSIONS, PAPER_TASKS, TASKS, Dimension, Task

Picture = Float32[np.ndarray, "s s 3"]
"""RGB in [0, 255]."""

Reconstruct = Callable[[Float32[np.ndarray, "n s s 3"]], Float32[Array, "n s s 3"]]
"""Maps images in [-1, 1] to an autoencoder's reconstructions."""

RECONSTRUCT_BATCH = 64


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticPair:
    """A question about two images, and its answer.

    Attributes:
      winner, loser: uint8 images.
      mask: 255 where they may differ.
      task, dimension, prompt: parts of the query.
    """

    winner: UInt8[np.ndarray, "s s 3"]
    loser: UInt8[np.ndarray, "s s 3"]
    mask: UInt8[np.ndarray, "s s"]
    task: Task
    dimension: Dimension
    prompt: str


def synthetic_pair(
    rng: np.random.Generator, split: str, size: int, prompt_share: float
) -> SyntheticPair:
    """Two versions of a scene, both damaged in the asked dimension, the loser more strongly.

    Each version also gets a damage in another dimension with probability 0.5.
    `prompt_share`: share of the questions about the prompt, for tasks that have one.
    """
    task = Task(str(rng.choice(PAPER_TASKS, p=(0.5, 0.15, 0.1, 0.25))))
    scene = make_scene(rng, task, split, size)
    dimension = Dimension(str(rng.choice(DIMENSIONS[task], p=_shares(task, prompt_share))))
    strengths = np.sort(rng.uniform(0, 1, 2) ** 0.7)
    if strengths[1] - strengths[0] < 0.25:
        strengths = np.array([strengths[0] * 0.5, min(1.0, strengths[1] + 0.25)])
    if dimension is Dimension.TEXT_ALIGNMENT:  # an image follows the prompt or it does not
        strengths = np.array([0.0, 1.0])
    pictures = [scene.target.astype(np.float32)] * 2
    others = [other for other in DAMAGES if other not in (dimension, *SCENE_ONLY)]
    for side in range(2):
        if rng.random() < 0.5:
            other = others[rng.integers(len(others))]
            pictures[side] = DAMAGES[other](rng, pictures[side], scene, rng.uniform(0, 0.5))
    pictures = [
        DAMAGES[dimension](rng, picture, scene, float(strength))
        for picture, strength in zip(pictures, strengths)
    ]
    winner, loser = (np.clip(picture, 0, 255).astype(np.uint8) for picture in pictures)
    return SyntheticPair(winner, loser, scene.mask, task, dimension, scene.prompt)


def _shares(task: Task, prompt_share: float) -> list[float]:
    """Probability of each dimension in a question."""
    dimensions = DIMENSIONS[task]
    if Dimension.TEXT_ALIGNMENT not in dimensions:
        return [1 / len(dimensions)] * len(dimensions)
    other = (1 - prompt_share) / (len(dimensions) - 1)
    return [prompt_share if one is Dimension.TEXT_ALIGNMENT else other for one in dimensions]


def pair_table(
    path: Path,
    *,
    count: int,
    split: str,
    size: int,
    seed: int,
    prompt_share: float,
    reconstruct: Reconstruct | None = None,
) -> dict[str, np.ndarray]:
    """Synthetic pairs, read from `path` if the file exists.

    Args:
      path: the safetensors file.
      count: number of pairs.
      split: split of the photographs.
      size: height and width of the images in pixels.
      seed: seed of the pairs.
      prompt_share: share of the questions about the prompt, for tasks that have one.
      reconstruct: an autoencoder's reconstruction of images in [-1, 1]. If given, every second pair
        is replaced by its reconstruction inside the mask, because the editor's output comes from
        the autoencoder too.

    Returns:
      winner, loser uint8 [count, size, size, 3]; task, dimension int32 [count], indices into
      `tasks.TASKS` and `tasks.DIMENSIONS` of that task; prompt int32 [count], index into
      `mini.world.prompts()`.
    """
    if path.is_file():
        return load_file(path)
    rng, numbers = np.random.default_rng(seed), {text: n for n, text in enumerate(prompts())}
    made = []
    with progress_bar(f"{split} pairs", count, unit="pair") as bar:
        for _ in range(count):
            made.append(synthetic_pair(rng, split, size, prompt_share))
            bar.update()
    if reconstruct:
        starts = range(0, count, 2 * RECONSTRUCT_BATCH)
        with progress_bar(
            "reconstructions", len(starts), unit="batch", program="reconstructions"
        ) as bar:
            for start in starts:
                _reconstruct(made[start : start + 2 * RECONSTRUCT_BATCH : 2], reconstruct)
                bar.update()
    table = {
        "winner": np.stack([pair.winner for pair in made]),
        "loser": np.stack([pair.loser for pair in made]),
        "task": np.int32([TASKS.index(pair.task) for pair in made]),
        "dimension": np.int32([DIMENSIONS[pair.task].index(pair.dimension) for pair in made]),
        "prompt": np.int32([numbers[pair.prompt] for pair in made]),
    }
    with atomic_file(path) as draft:
        draft.write_bytes(save(table))
    return table


def _reconstruct(pairs: Sequence[SyntheticPair], reconstruct: Reconstruct) -> None:
    """Overwrites the pairs' images, inside the mask, by the autoencoder's reconstruction."""
    pictures = [picture for pair in pairs for picture in (pair.winner, pair.loser)]
    masks = [pair.mask for pair in pairs for _ in range(2)]
    seen = np.asarray(reconstruct(from_uint8(pictures)))
    for picture, mask, new in zip(pictures, masks, np.rint(seen.clip(-1, 1) * 127.5 + 127.5)):
        picture[mask > 0] = new[mask > 0]


def _structure(
    rng: np.random.Generator, picture: Picture, scene: Scene, strength: float
) -> Picture:
    """Displaces the masked area by waves, so that lines break."""
    size = picture.shape[0]
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    reach = 7.0 * strength * size / 64
    waves = [
        reach * np.sin(2 * np.pi * (line / rng.uniform(8, 20) + rng.random()))
        for line in (columns, rows)
    ]
    y = np.clip(np.rint(rows + waves[0]), 0, size - 1).astype(int)
    x = np.clip(np.rint(columns + waves[1]), 0, size - 1).astype(int)
    return np.where(scene.mask[..., None] > 0, picture[y, x], picture)


def _consistency(
    rng: np.random.Generator, picture: Picture, scene: Scene, strength: float
) -> Picture:
    """Changes colour and brightness of the masked area relative to its surroundings."""
    direction = rng.normal(size=3)
    shift = 90.0 * strength * direction / np.linalg.norm(direction)
    return picture + np.float32(shift) * (scene.mask[..., None] > 0)


def _text_alignment(
    rng: np.random.Generator, picture: Picture, scene: Scene, strength: float
) -> Picture:
    """Not what the prompt asks for: another object, nothing, another word, another colour."""
    inside = scene.mask[..., None] > 0
    if strength == 0.0:
        return picture
    strength = rng.uniform(0.5, 1.0)
    if scene.kind == "scene":
        mean = picture[scene.mask > 0].mean(0)
        while describe_colour(colour := rng.uniform(0, 255, 3)) == prompt_colour(scene.prompt):
            pass
        return np.where(inside, picture + strength * (colour - mean), picture).astype(np.float32)
    if rng.random() < 0.3:
        return np.where(inside, scene.background, picture).astype(np.float32)
    return np.where(inside, _other(rng, scene), picture).astype(np.float32)


def _other(rng: np.random.Generator, scene: Scene) -> Picture:
    """The scene's background with another object or word of the same kind in its box."""
    size, (y0, x0, y1, x1) = scene.mask.shape[0], scene.box
    other = scene
    while other.label == scene.label:
        other = make_scene(rng, Task.FILL, "train", size, kind=scene.kind)
    b0, a0, b1, a1 = other.box
    picture = Image.fromarray(scene.background)
    cut = Image.fromarray(other.target).crop((a0, b0, a1, b1)).resize((x1 - x0, y1 - y0))
    behind = Image.fromarray(other.background).crop((a0, b0, a1, b1)).resize((x1 - x0, y1 - y0))
    difference = np.abs(np.int16(cut) - np.int16(behind)).max(-1) > 12
    picture.paste(cut, (x0, y0), Image.fromarray(difference.astype(np.uint8) * 255))
    return np.asarray(picture, np.float32)


def _aesthetics(
    rng: np.random.Generator, picture: Picture, scene: Scene, strength: float
) -> Picture:
    """Blur, garish colours, noise or blocks, in the whole image."""
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    kind = rng.integers(4)
    if kind == 0:
        radius = 2.6 * strength * image.width / 64
        return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)
    if kind == 1:
        grey = picture.mean(-1, keepdims=True)
        return 127 + (grey + (picture - grey) * (1 + 2.5 * strength) - 127) * (1 + 0.6 * strength)
    if kind == 2:
        return picture + rng.normal(0, 45.0 * strength, picture.shape).astype(np.float32)
    grey = picture.mean(-1, keepdims=True)
    return 127 + (grey + (picture - grey) * (1 - 0.9 * strength) - 127) * (1 - 0.5 * strength)


def _removal_quality(
    rng: np.random.Generator, picture: Picture, scene: Scene, strength: float
) -> Picture:
    """Something remains or is invented where the object was: the object, another one, or blots."""
    inside = scene.mask[..., None] > 0
    if rng.random() < 0.4:
        ghost = np.where(inside, scene.image, picture)
    else:
        ghost = picture.copy()
        y0, x0, y1, x1 = scene.box
        rows, columns = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
        for _ in range(int(rng.integers(1, 5))):
            y, x = rng.integers(y0, y1), rng.integers(x0, x1)
            radius = rng.uniform(0.1, 0.35) * max(y1 - y0, x1 - x0)
            blot = ((rows - y) ** 2 + (columns - x) ** 2 < radius**2)[..., None]
            ghost = np.where(blot & inside, rng.uniform(0, 255, 3), ghost)
    return (picture + np.float32(min(1.0, 1.2 * strength)) * (ghost - picture)).astype(np.float32)


DAMAGES: dict[Dimension, Callable[[np.random.Generator, Picture, Scene, float], Picture]] = {
    Dimension.STRUCTURE: _structure,
    Dimension.CONSISTENCY: _consistency,
    Dimension.TEXT_ALIGNMENT: _text_alignment,
    Dimension.AESTHETICS: _aesthetics,
    Dimension.REMOVAL_QUALITY: _removal_quality,
}
"""Dimension -> damage; strength 0 changes nothing, 1 is clearly visible."""

SCENE_ONLY = (Dimension.TEXT_ALIGNMENT, Dimension.REMOVAL_QUALITY)
"""Damages that apply to some tasks only, so they are never used as an additional damage."""
