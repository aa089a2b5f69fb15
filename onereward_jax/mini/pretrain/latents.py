"""Scenes encoded once by the frozen autoencoder, for many epochs of the editor's training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree
from safetensors.numpy import load_file, save

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.pixels import from_uint8
from onereward_jax.mini.pretrain.flawed_targets import flawed, see_through
from onereward_jax.mini.world import make_scene
from onereward_jax.mini.world import prompts as all_prompts
from onereward_jax.parallel.progress import progress_bar
from onereward_jax.policy import FillPolicy
from onereward_jax.tasks import Task

ENCODE_BATCH = 64


def scene_latents(
    path: Path,
    editor: FillPolicy,
    vae_params: PyTree,
    *,
    count: int,
    size: int,
    seed: int,
    shares: Mapping[str, float],
    faint: float,
    opacity: tuple[float, float],
    flaws: float,
) -> dict[str, np.ndarray]:
    """The encoded scenes, read from `path` if the file exists.

    Args:
      path: the safetensors file.
      editor, vae_params: the autoencoder.
      count: number of scenes.
      size: height and width of the images in pixels.
      seed: seed of the scenes.
      shares: share of each task.
      faint, opacity: as in `see_through`.
      flaws: share of the scenes with a flaw, as in `flawed`.

    Returns:
      latents, masked_latents float32 [count, n, c]; mask uint8 [count, size, size, 1] in {0, 1};
      prompt int32 [count], index into `all_prompts()`.
    """
    if path.is_file():
        return load_file(path)
    numbers = {text: n for n, text in enumerate(all_prompts())}
    rng, flaw_rng = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    encode = jax.jit(lambda images: editor.encode_image(vae_params, images))
    columns: dict[str, list[np.ndarray]] = {}
    batches = -(-count // ENCODE_BATCH)
    with progress_bar("scenes", batches, unit="batch", program="scenes") as bar:
        for _ in range(batches):
            tasks = rng.choice(list(shares), ENCODE_BATCH, p=list(shares.values()))
            scenes = [make_scene(rng, Task(str(task)), "train", size) for task in tasks]
            mask = np.stack([scene.mask for scene in scenes])[..., None] // 255
            images = np.stack([from_uint8(scene.image) for scene in scenes])
            drawn = [see_through(rng, scene, faint, opacity) for scene in scenes]
            drawn = [flawed(flaw_rng, *pair, flaws) for pair in zip(drawn, scenes)]
            targets = np.stack(drawn) / 127.5 - 1.0
            batch = {
                "latents": encode(targets),
                "masked_latents": encode(images * (1.0 - mask.astype(np.float32))),
                "mask": mask,
                "prompt": np.int32([numbers[scene.prompt] for scene in scenes]),
            }
            for name, array in batch.items():
                columns.setdefault(name, []).append(np.asarray(array))
            bar.update()
    whole = {name: np.concatenate(parts)[:count] for name, parts in columns.items()}
    with atomic_file(path) as draft:
        draft.write_bytes(save(whole))
    return whole
