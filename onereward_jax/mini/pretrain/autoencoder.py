"""The mini world's autoencoder, trained on its scenes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, PyTree

from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.common.pixels import from_uint8
from onereward_jax.common.rng import stream
from onereward_jax.convert import VAE, load_params, read_config, save_params
from onereward_jax.mini.pretrain.train import optimizer_config, train_model
from onereward_jax.mini.pretrain.vae_step import VaeLoss, make_vae_step
from onereward_jax.mini.world import make_scene
from onereward_jax.models.vae import AutoencoderKL, VaeConfig
from onereward_jax.parallel import abstract_arrays, mesh_jit
from onereward_jax.tasks import Task
from onereward_jax.training.optimizer import make_optimizer
from onereward_jax.training.train_state import abstract_state, place_state, shardings_of

VAE_CONFIG = VaeConfig(
    block_out_channels=(16, 32, 64, 64),
    layers_per_block=1,
    latent_channels=16,
    norm_num_groups=8,
    scaling_factor=1.0,
    shift_factor=0.0,
)
"""FLUX's autoencoder at an eightieth of its size: 8 × 8 pixels to 16 channels."""

TASK_SHARES = {Task.FILL: 0.5, Task.EXTEND_WITHOUT_PROMPT: 0.2, Task.REMOVAL: 0.3}
"""Share of each task among the training scenes."""

CALIBRATION = 256
"""Number of scenes used to calibrate the latents' scaling and shift, and to measure PSNR."""


def pictures(seed: int, split: str, size: int) -> grain.MapDataset:
    """Endless targets of scenes, randomly mirrored, as {"image" in [-1, 1], "index"}."""

    def draw(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        task = list(TASK_SHARES)[rng.choice(len(TASK_SHARES), p=list(TASK_SHARES.values()))]
        image = make_scene(rng, task, split, size).target
        image = image[:, ::-1] if rng.random() < 0.5 else image
        return {"image": from_uint8(image), "index": np.int32(index)}

    return grain.MapDataset.range(2**30).seed(seed).random_map(draw)


def train_autoencoder(context: StageContext) -> Results:
    """Trains the autoencoder and writes the folder `vae`; returns PSNR on held-out photographs."""
    folder = context.folder / "vae"
    section, seed = context.config.pretrain.vae, context.config.seed
    size, mesh = context.config.pretrain.image_size, context.mesh
    vae = AutoencoderKL(VAE_CONFIG)
    optimizer = make_optimizer(optimizer_config(context.config, "vae"))
    init, abstract_params = _initialiser(vae, seed, mesh)
    abstract = abstract_state(abstract_params, optimizer, mesh, with_ema=True)
    weights = VaeLoss(kl_weight=section.kl_weight, squared_weight=section.squared_weight)
    state = train_model(
        context,
        "vae",
        make_vae_step(vae, weights, optimizer, section.ema_decay, abstract, mesh, seed),
        abstract,
        lambda: place_state(init(), optimizer, mesh, with_ema=True),
        pictures(seed, "train", size).batch(section.batch_size),
    )
    params = jax.device_get(state.ema)
    held_out = next(iter(pictures(seed + 1, "test", size).batch(CALIBRATION)))["image"]
    seen = next(iter(pictures(seed + 2, "train", size).batch(CALIBRATION)))["image"]
    save_params(folder, params, VAE, config=_calibrated(vae, params, seen).to_dict())
    return {"vae_psnr_held_out_db": round(psnr(vae, params, held_out), 2)}


def read_autoencoder(folder: Path) -> tuple[AutoencoderKL, PyTree]:
    """The model that `train_autoencoder` wrote to `folder`, and its parameters."""
    vae = AutoencoderKL(VaeConfig.from_dict(read_config(folder)))
    image = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(lambda: vae.init(jax.random.key(0), image)["params"])
    return vae, load_params(folder, nn.meta.unbox(shapes), VAE)


def psnr(vae: AutoencoderKL, params: PyTree, images: Float32[np.ndarray, "n h w 3"]) -> float:
    """Mean peak signal-to-noise ratio of the reconstructions, in dB."""

    @jax.jit
    def squared_error(batch: jax.Array) -> jax.Array:
        rebuilt = jnp.clip(vae.apply({"params": params}, batch), -1.0, 1.0)
        return jnp.mean(jnp.square(rebuilt - batch), axis=(1, 2, 3))

    errors = np.concatenate([squared_error(part) for part in np.split(images, len(images) // 64)])
    return float(np.mean(10.0 * np.log10(4.0 / errors)))


def _initialiser(vae: AutoencoderKL, seed: int, mesh: Mesh):
    """A function that makes random parameters on the mesh, and their shapes and shardings."""
    image = jnp.zeros((mesh.size, 64, 64, 3))

    def init() -> PyTree:
        return vae.init(stream(seed, "vae_init"), image)["params"]

    boxed = jax.eval_shape(init)
    abstract = abstract_arrays(boxed, mesh)
    shardings = shardings_of(abstract)
    return mesh_jit(lambda: nn.meta.unbox(init()), mesh, out_shardings=shardings), abstract


def _calibrated(
    vae: AutoencoderKL, params: PyTree, images: Float32[np.ndarray, "n h w 3"]
) -> VaeConfig:
    """The config with scaling and shift such that latents have mean 0 and standard deviation 1."""
    encode = jax.jit(lambda batch: vae.apply({"params": params}, batch, method="encode")[0])
    latents = np.concatenate([encode(part) for part in np.split(images, len(images) // 64)])
    return dataclasses.replace(
        vae.config,
        scaling_factor=round(float(1.0 / latents.std()), 4),
        shift_factor=round(float(latents.mean()), 4),
    )
