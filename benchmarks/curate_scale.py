"""How fast pictures are chosen: decoding, CLIP, near-duplicates, K-means; time and peak memory.

    python benchmarks/curate_scale.py          # 100,000 synthetic embeddings of 768 numbers
    python benchmarks/curate_scale.py --pictures photographs --clip clip-vit-base-patch32

Without --clip, the vision tower has random weights in the sizes of CLIP ViT-B/32, which take the
same time. Without --pictures, photographs of scikit-image, enlarged to 12 megapixels, with noise,
are written as JPEG.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from onereward_jax.convert import CLIP_VISION, save_params
from onereward_jax.curation.clip_embedder import ClipEmbedder
from onereward_jax.curation.clusters import find_clusters
from onereward_jax.curation.embeddings import embed_pictures
from onereward_jax.curation.near_duplicates import find_near_duplicates
from onereward_jax.data.picture_files import SUFFIXES, files_below
from onereward_jax.models.clip import ClipVisionConfig, ClipVisionModel


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", help="folder; default: synthetic photographs")
    parser.add_argument("--clip", help="folder; default: random weights of ViT-B/32")
    parser.add_argument("--count", type=int, default=64, help="pictures to embed")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--embeddings", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--clusters", type=int, default=1000)
    flags = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, devices: {jax.local_devices()}")
    with tempfile.TemporaryDirectory() as name:
        _embed(flags, Path(name))
    _choose(flags)


def _embed(flags: argparse.Namespace, top: Path) -> None:
    clip = Path(flags.clip) if flags.clip else _random_clip(top / "clip")
    pictures = Path(flags.pictures) if flags.pictures else _photographs(top / "pictures")
    names = files_below(pictures, SUFFIXES)
    files = {str(number): pictures / names[number % len(names)] for number in range(flags.count)}
    embedder = ClipEmbedder(clip, batch_size=flags.batch)
    side = embedder.preprocess.crop
    batch = np.zeros((embedder.batch_size, side, side, 3), np.float32)
    embedder(batch)  # compiles
    seconds = _timed(lambda: embedder(batch))
    print(f"CLIP alone: {embedder.batch_size / seconds:.1f} pictures/s")
    threads = min(16, os.cpu_count() or 1)
    seconds = _timed(lambda: list(embed_pictures(files, top / "out", embedder, threads=threads)))
    print(
        f"decode ({threads} threads) and CLIP: {flags.count / seconds:.1f} pictures/s; peak memory "
        f"{_peak():.0f} MB"
    )


def _choose(flags: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(flags.clusters, flags.width)).astype(np.float32)
    embeddings = centres[rng.integers(0, flags.clusters, flags.embeddings)]
    embeddings += 0.8 * rng.standard_normal(embeddings.shape, np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    about = f"{flags.embeddings} embeddings of {flags.width}"
    print(f"{about}: {embeddings.nbytes / 1e6:.0f} MB; peak memory before {_peak():.0f} MB")
    seconds = _timed(lambda: find_clusters(embeddings, flags.clusters, 0))
    print(f"K-means, {flags.clusters} clusters: {seconds:.0f} s, peak memory {_peak():.0f} MB")
    order = list(range(len(embeddings)))
    found = []
    seconds = _timed(lambda: found.append(find_near_duplicates(embeddings, order, 0.97)))
    print(
        f"near-duplicates, all pairs: {seconds:.0f} s, {len(found[0].of)} found, peak memory "
        f"{_peak():.0f} MB"
    )


def _timed(call) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


def _peak() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _random_clip(folder: Path) -> Path:
    """The vision tower of ViT-B/32 with random weights."""
    config = ClipVisionConfig()
    model = ClipVisionModel(config)
    pixels = jnp.zeros((1, config.image_size, config.image_size, 3))
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), pixels)["params"])
    save_params(folder, params, CLIP_VISION, config={"projection_dim": config.projection_dim})
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 224, "crop_size": 224}))
    return folder


def _photographs(folder: Path) -> Path:
    """Four JPEG files of 12 megapixels."""
    from skimage import data

    folder.mkdir(parents=True)
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        picture = Image.fromarray(getattr(data, name)()).resize((4000, 3000), Image.BICUBIC)
        noise = np.random.default_rng(0).normal(0, 4, (3000, 4000, 1))
        pixels = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=90)
    return folder


if __name__ == "__main__":
    main()
