"""AutoencoderKL: parity with diffusers, forward and gradient; meshes; the range of log variance."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL as TorchVae
from parity import gradient_of, relative_error

from onereward_jax.convert import VAE, load_params
from onereward_jax.models.vae import AutoencoderKL, VaeConfig
from onereward_jax.parallel import logical_shardings, make_mesh, mesh_jit

SMALL = VaeConfig(
    block_out_channels=(8, 16),
    layers_per_block=1,
    latent_channels=4,
    norm_num_groups=4,
    use_quant_conv=True,
    use_post_quant_conv=True,
)
DEEP = VaeConfig(
    block_out_channels=(6, 6, 12),
    layers_per_block=2,
    latent_channels=3,
    norm_num_groups=3,
    scaling_factor=0.5,
    mid_block_add_attention=False,
)
SIZES = {SMALL: (23, 38), DEEP: (24, 40)}
BATCH = 2
TOLERANCE = 2e-4


def abstract_params(config: VaeConfig):
    model, side = AutoencoderKL(config), config.scale_factor
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((8, side, side, 3)))["params"]


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def to_torch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def to_numpy(images: torch.Tensor) -> np.ndarray:
    return images.detach().numpy().transpose(0, 2, 3, 1)


@pytest.fixture(scope="module", params=[SMALL, DEEP], ids=["small", "deep"])
def pair(request, tmp_path_factory):
    """The torch oracle, our config, and our parameters read from the oracle's folder."""
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    oracle = TorchVae.from_config(request.param.to_dict()).eval()
    for parameter in oracle.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    oracle.save_pretrained(folder)
    config = VaeConfig.from_dict(dict(oracle.config))
    assert config == request.param
    return oracle, config, load_params(folder, abstract_params(config), VAE)


def test_both_ways_and_all_gradients_equal_diffusers(pair, tmp_path):
    oracle, config, params = pair
    images = np.tanh(draw(1, BATCH, *SIZES[config], 3))
    pixels = to_torch(images).requires_grad_()
    distribution = oracle.encode(pixels).latent_dist
    latents = draw(2, *to_numpy(distribution.mean).shape)
    given = to_torch(latents).requires_grad_()
    outputs = (distribution.mean, distribution.logvar, oracle.decode(given).sample)
    expected = [to_numpy(output) for output in outputs]
    weights = [draw(3 + index, *output.shape) for index, output in enumerate(expected)]
    sum((out * to_torch(weight)).sum() for out, weight in zip(outputs, weights)).backward()

    def objective(params, images, latents):
        model = AutoencoderKL(config)
        mean, log_variance = model.apply({"params": params}, images, method="encode")
        decoded = model.apply({"params": params}, latents, method="decode")
        outputs = (mean, log_variance, decoded)
        return sum((out * weight).sum() for out, weight in zip(outputs, weights)), outputs

    differentiate = jax.jit(jax.grad(objective, argnums=(0, 1, 2), has_aux=True))
    (params_gradient, *gradients), found = differentiate(params, images, latents)
    for ours, theirs in zip(found, expected):
        assert relative_error(ours, theirs) <= TOLERANCE
    for ours, theirs in zip(gradients, (pixels, given)):
        assert relative_error(ours, to_numpy(theirs.grad)) <= TOLERANCE

    expected_gradient = gradient_of(oracle, tmp_path, params, VAE)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected_gradient))

    def error(ours, theirs):
        # A bias in front of a norm of its own, or of all keys, has no gradient but rounding.
        return np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-3 * largest)

    errors = jax.tree.map(error, params_gradient, expected_gradient)
    worst = max(jax.tree_util.tree_leaves_with_path(errors), key=lambda leaf: leaf[1])
    assert worst[1] <= TOLERANCE, worst


@pytest.mark.parametrize("pair", [SMALL], ids=["small"], indirect=True)
def test_log_variance_stays_in_its_range(pair):
    """A network gone astray gives neither infinite nor vanishing deviations."""
    _, config, params = pair
    bias = params["quant_conv"]["bias"].at[-2:].add(jnp.array([1e3, -1e3]))
    astray = {**params, "quant_conv": {**params["quant_conv"], "bias": bias}}
    images = jnp.asarray(draw(1, 1, 8, 8, 3))
    model = AutoencoderKL(config)
    encode = jax.jit(lambda params: model.apply({"params": params}, images, method="encode"))
    (mean, log_variance), (expected, inside) = encode(astray), encode(params)
    np.testing.assert_array_equal(mean, expected)
    np.testing.assert_array_equal(log_variance[..., :2], inside[..., :2])
    assert np.all(log_variance[..., 2] == 20.0) and np.all(log_variance[..., 3] == -30.0)


@pytest.mark.parametrize("pair", [SMALL], ids=["small"], indirect=True)
def test_mesh_of_eight_splits_the_kernels_and_gives_the_same_picture(pair):
    _, config, params = pair
    images, found = np.tanh(draw(1, 8, 8, 12, 3)), []
    for mesh in (make_mesh(devices=jax.devices()[:1]), make_mesh(4, 2, 1)):
        placed = jax.device_put(params, logical_shardings(abstract_params(config), mesh))
        rebuild = mesh_jit(
            lambda params, images: AutoencoderKL(config).apply({"params": params}, images), mesh
        )
        assert "sdy.sharding_constraint" in rebuild.lower(placed, images).as_text()
        found.append(rebuild(placed, images))
    kernel = placed["encoder"]["mid_block"]["resnets_0"]["conv1"]["kernel"]
    assert kernel.size == 2 * kernel.addressable_shards[0].data.size
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_rows_on_several_devices_give_the_same_picture_and_gradients(remat):
    """Edges of a device's rows are where convolutions, halvings and doublings go wrong."""
    config = dataclasses.replace(SMALL, block_out_channels=(8, 8, 16))
    model = AutoencoderKL(config, remat=remat)
    images = draw(1, 2, 32, 24, 3)
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1 * draw(2, *leaf.shape), nn.meta.unbox(params))

    def error(params, images):
        made = model.apply({"params": params}, images)
        return jnp.mean(jnp.square(made - images[:, ::-1])), made

    found = {}
    for sizes in ((1, 1, 1), (1, 2, 2, 2)):
        mesh = make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])
        # As in a run: features of the kernels on `fsdp`, rows of the images on the other axes.
        placed = jax.device_put(params, logical_shardings(abstract_params(config), mesh))
        step = mesh_jit(jax.value_and_grad(error, argnums=(0, 1), has_aux=True), mesh)
        compiled = step.lower(placed, images).compile()
        found[sizes] = jax.device_get(compiled(placed, images))
    assert "collective-permute" in compiled.as_text()
    (value, gradients), (ours, our_gradients) = found.values()
    for part in (0, 1):
        assert relative_error(ours[part], value[part]) < TOLERANCE
    # Biases in front of a norm have no gradient but rounding errors.
    least = TOLERANCE * max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients))
    for gradient, ours in zip(*map(jax.tree.leaves, (gradients, our_gradients)), strict=True):
        np.testing.assert_allclose(ours, gradient, atol=least, rtol=10 * TOLERANCE)


def test_flux_vae_has_its_published_size():
    with torch.device("meta"):
        oracle = TorchVae.from_config(VaeConfig().to_dict())
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(abstract_params(VaeConfig())))
    assert count == sum(parameter.numel() for parameter in oracle.parameters())
    assert round(count / 1e6, 1) == 83.8


@pytest.mark.parametrize(
    "change, message",
    [
        ({"down_block_types": ["AttnDownBlock2D"]}, r"down_block_types \['AttnDownBlock2D'\]"),
        ({"up_block_types": ["UpBlock2D"]}, r"up_block_types \['UpBlock2D'\]"),
        ({"act_fn": "relu"}, "act_fn 'relu'"),
    ],
)
def test_unsupported_config_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        VaeConfig.from_dict(dataclasses.asdict(SMALL) | change)
