"""FLUX transformer: parity with diffusers, sharding, rematerialisation, full-size shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from flax import linen as nn
from parity import gradient_of, relative_error

from onereward_jax.convert import FLUX, load_params
from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.models.flux.rotary import apply_rotary, rotary_table
from onereward_jax.parallel import logical_shardings, make_mesh

SMALL = dict(
    in_channels=24,
    out_channels=8,
    num_layers=2,
    num_single_layers=2,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=20,
    pooled_projection_dim=12,
    guidance_embeds=True,
    axes_dims_rope=(4, 6, 6),
)
ODD = SMALL | dict(
    in_channels=9,
    out_channels=None,
    num_layers=1,
    num_single_layers=3,
    attention_head_dim=10,
    num_attention_heads=3,
    guidance_embeds=False,
    axes_dims_rope=(2, 4, 4),
)
TOLERANCE = 2e-4


def make_inputs(config: FluxConfig, batch: int = 4, rows: int = 3, columns: int = 5, text: int = 7):
    """Random arguments of the model, by name."""
    rng = np.random.default_rng(0)
    row, column = np.divmod(np.arange(rows * columns), columns)
    inputs = dict(
        hidden_states=rng.normal(size=(batch, rows * columns, config.in_channels)),
        encoder_hidden_states=rng.normal(size=(batch, text, config.joint_attention_dim)),
        pooled_projections=rng.normal(size=(batch, config.pooled_projection_dim)),
        timestep=rng.uniform(size=batch),
        img_ids=np.stack([np.zeros_like(row), row, column], axis=-1),
        txt_ids=np.zeros((text, 3)),
    )
    if config.guidance_embeds:
        inputs["guidance"] = rng.uniform(1.0, 4.0, size=batch)
    return {name: value.astype(np.float32) for name, value in inputs.items()}


def abstract_params(config: FluxConfig, inputs, **attributes):
    model = FluxTransformer(config, **attributes)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), **inputs))["params"]


def save_oracle(values: dict, folder) -> FluxTransformer2DModel:
    torch.manual_seed(0)
    oracle = FluxTransformer2DModel(**values)
    for parameter in oracle.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    oracle.save_pretrained(folder)
    return oracle


@pytest.fixture(scope="module", params=[SMALL, ODD], ids=["small", "odd"])
def pair(request, tmp_path_factory):
    """The torch oracle, our parameters read from its folder, and inputs."""
    folder = tmp_path_factory.mktemp("flux")
    oracle = save_oracle(request.param, folder)
    config = FluxConfig.from_dict(dict(oracle.config))
    inputs = jax.tree.map(jnp.asarray, make_inputs(config))
    params = load_params(folder, abstract_params(config, inputs), FLUX)
    return oracle, config, params, inputs


def test_output_and_gradients_equal_diffusers(pair, tmp_path):
    oracle, config, params, inputs = pair
    tensors = {name: torch.tensor(np.asarray(value)) for name, value in inputs.items()}
    tensors["hidden_states"].requires_grad_()
    expected = oracle(**tensors).sample
    weights = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    (expected * torch.tensor(weights)).sum().backward()

    def objective(params, hidden_states):
        arguments = inputs | {"hidden_states": hidden_states}
        output = FluxTransformer(config).apply({"params": params}, **arguments)
        return (output * weights).sum(), output

    differentiate = jax.jit(jax.grad(objective, argnums=(0, 1), has_aux=True))
    (params_gradient, input_gradient), output = differentiate(params, inputs["hidden_states"])
    assert relative_error(output, expected.detach()) <= TOLERANCE
    assert relative_error(input_gradient, tensors["hidden_states"].grad) <= TOLERANCE

    expected_gradient = gradient_of(oracle, tmp_path, params, FLUX)
    errors = jax.tree.map(relative_error, params_gradient, expected_gradient)
    worst = max(jax.tree_util.tree_leaves_with_path(errors), key=lambda leaf: leaf[1])
    assert worst[1] <= TOLERANCE, worst


@pytest.fixture(scope="module")
def random_model():
    """Config, random parameters (a fresh model would predict zero) and inputs."""
    config = FluxConfig.from_dict(SMALL)
    inputs = jax.tree.map(jnp.asarray, make_inputs(config))
    rng = np.random.default_rng(2)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(scale=0.15, size=leaf.shape), jnp.float32),
        nn.meta.unbox(abstract_params(config, inputs)),
    )
    return config, params, inputs


def test_mesh_of_eight_splits_the_weights_and_gives_the_same_velocity(random_model):
    config, params, inputs = random_model
    model = FluxTransformer(config)
    outputs = []
    for shape in [(1, 1, 1), (2, 2, 2)]:
        mesh = make_mesh(*shape, devices=jax.devices()[: np.prod(shape)])
        shardings = logical_shardings(abstract_params(config, inputs), mesh)
        with jax.set_mesh(mesh):
            placed = jax.device_put(params, shardings)
            predict = jax.jit(lambda params, inputs: model.apply({"params": params}, **inputs))
            lowered = predict.lower(placed, inputs).as_text()
            outputs.append(np.asarray(predict(placed, inputs)))
        # streams, heads and MLPs of both stacks; under a legacy mesh context there would be none
        assert lowered.count("sdy.sharding_constraint") >= 10
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)

    for path, leaf in jax.tree_util.tree_leaves_with_path(placed):
        name = jax.tree_util.keystr(path)
        ways = leaf.size / leaf.addressable_shards[0].data.size
        if "kernel" in name:
            odd = "context_embedder" in name or "x_embedder" in name or "text_embedder" in name
            assert ways == 4 or odd, f"{name} is split {ways} ways over fsdp x tensor"


def program_and_gradient(random_model, policy):
    """The jaxpr of a gradient under a policy of rematerialisation, and its values."""
    config, params, inputs = random_model
    model = FluxTransformer(config, remat=policy)
    objective = lambda params: jnp.square(model.apply({"params": params}, **inputs)).mean()
    traced = jax.jit(jax.grad(objective)).trace(params)
    return str(traced.jaxpr), traced.lower().compile()(params)


@pytest.fixture(scope="module")
def plain_gradient(random_model):
    program, gradient = program_and_gradient(random_model, "none")
    assert "remat" not in program
    return gradient


@pytest.mark.parametrize("policy", ["full", "dots", "attention", "offload"])
def test_recomputed_activations_give_the_same_gradient(random_model, plain_gradient, policy):
    program, recomputed = program_and_gradient(random_model, policy)
    assert "remat" in program
    assert ("<host>" in program) == (policy == "offload")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        recomputed,
        plain_gradient,
    )


def test_bfloat16_follows_float32(random_model):
    config, params, inputs = random_model
    outputs = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        predict = jax.jit(FluxTransformer(config, dtype=dtype).apply)
        outputs[dtype] = predict({"params": params}, **inputs)
        assert outputs[dtype].dtype == dtype
    expected = outputs[jnp.float32]
    error = jnp.linalg.norm(outputs[jnp.bfloat16] - expected) / jnp.linalg.norm(expected)
    assert error < 0.03


def test_fresh_model_predicts_zero(random_model):
    config, _, inputs = random_model
    model = FluxTransformer(config)
    output, _ = jax.jit(lambda: model.init_with_output(jax.random.key(0), **inputs))()
    np.testing.assert_array_equal(output, 0.0)


def test_fill_dev_has_its_published_size():
    values = dict(in_channels=384, out_channels=64, guidance_embeds=True)
    with torch.device("meta"):
        oracle = FluxTransformer2DModel(**values)
    config = FluxConfig.from_dict(dict(oracle.config))
    inputs = jax.tree.map(jnp.asarray, make_inputs(config, batch=1, rows=2, columns=2, text=2))
    leaves = jax.tree.leaves(abstract_params(config, inputs))
    count = sum(int(np.prod(leaf.shape)) for leaf in leaves)
    assert count == sum(parameter.numel() for parameter in oracle.parameters())
    assert round(count / 1e9, 1) == 11.9


def test_rotary_scores_depend_on_relative_positions_only():
    dims = (4, 6, 6)
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.normal(size=(1, 5, 2, 16)), jnp.float32) for _ in range(2))
    ids = jnp.asarray(rng.integers(0, 60, size=(5, 3)))

    def scores(ids):
        table = rotary_table(ids, dims)
        return jnp.einsum("bqhd,bkhd->bhqk", apply_rotary(q, table), apply_rotary(k, table))

    np.testing.assert_allclose(scores(ids), scores(ids + jnp.array([3, 7, 40])), atol=1e-4)
    assert not np.allclose(scores(ids), scores(ids * 2), atol=1e-2)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"axes_dims_rope": (4, 4, 4)}, "axes_dims_rope .* must add up to attention_head_dim 16"),
        ({"axes_dims_rope": (5, 5, 6)}, "axes_dims_rope .* must be even"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"qk_norm": "layer_norm"}, "unsupported field 'qk_norm'"),
        ({"_class_name": "UNet2DModel"}, "_class_name is 'UNet2DModel'"),
    ],
)
def test_unsupported_config_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        FluxConfig.from_dict(SMALL | change)


@pytest.mark.parametrize("embeds, given", [(True, "missing"), (False, "given")])
def test_guidance_has_to_fit_the_config(random_model, embeds, given):
    _, _, inputs = random_model
    config = FluxConfig.from_dict(SMALL | {"guidance_embeds": embeds})
    guidance = None if embeds else jnp.ones(4)
    with pytest.raises(ValueError, match=f"guidance is {given}"):
        abstract_params(config, inputs | {"guidance": guidance})
