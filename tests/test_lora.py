"""Low-rank adapters: parity with diffusers and peft, files both ways, sums, merging, sharding."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import test_flux
import torch
from diffusers import FluxFillPipeline, FluxTransformer2DModel
from flax.traverse_util import flatten_dict
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from onereward_jax.convert import (
    FLUX,
    find_targets,
    load_adapter,
    load_params,
    save_adapter,
)
from onereward_jax.convert.lora_files import ADAPTER_FILE
from onereward_jax.convert.lora_settings import METADATA
from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.models.lora import (
    FACTOR_A,
    Adapted,
    Adapter,
    abstract_factors,
    combine,
    difference,
    first_factors,
    product_norm,
    uniform_adapter,
)
from onereward_jax.models.lora_merge import merge, unmerge
from onereward_jax.models.weights import variables
from onereward_jax.parallel import logical_shardings, make_mesh

SECOND_BLOCKS = r"(single_)?transformer_blocks\.1\.(attn\.to_q|ff\.net\.2|proj_out)"
CONFIG = FluxConfig.from_dict(test_flux.SMALL)


def add_adapter(oracle, name, seed, **settings):
    """A peft adapter of random A and B on the torch model."""
    torch.manual_seed(seed)
    oracle.add_adapter(peft.LoraConfig(**settings), adapter_name=name)
    for key, parameter in oracle.named_parameters():
        if f".{name}." in key:
            torch.nn.init.normal_(parameter, std=0.15)


def torch_velocity(oracle, inputs):
    with torch.no_grad():
        return oracle(**{k: torch.tensor(np.asarray(v)) for k, v in inputs.items()}).sample


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The torch model with two adapters, what it wrote, and our side of the same."""
    root = tmp_path_factory.mktemp("lora")
    oracle = test_flux.save_oracle(test_flux.SMALL, root / "base")
    inputs = jax.tree.map(jnp.asarray, test_flux.make_inputs(CONFIG))
    abstract = test_flux.abstract_params(CONFIG, inputs)
    params = load_params(root / "base", abstract, FLUX)
    # both streams, the joined one, norms, embedders and the output
    linears = [name for name, part in oracle.named_modules() if isinstance(part, torch.nn.Linear)]
    add_adapter(oracle, "all", 1, r=3, lora_alpha=6, target_modules=linears)
    add_adapter(
        oracle,
        "some",
        2,
        r=2,
        lora_alpha=5,
        target_modules=SECOND_BLOCKS,
        rank_pattern={r"single_transformer_blocks\.1\.attn\.to_q": 4},
        alpha_pattern={r"ff\.net\.2": 1},
    )
    for name in ("all", "some"):
        oracle.save_lora_adapter(root / name, adapter_name=name)
    model = FluxTransformer(CONFIG)
    predict = jax.jit(lambda weights: model.apply(variables(weights), **inputs))
    return oracle, root, params, inputs, predict


def read(world, *names):
    _, root, params, _, _ = world
    return [load_adapter(root / name, params, FLUX) for name in names]


def close(found, expected):
    assert test_flux.relative_error(found, expected) <= test_flux.TOLERANCE


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_every_linear_layer_can_be_adapted(world):
    _, _, params, _, _ = world
    kernels = sum(path[-1] == "kernel" for path in flatten_dict(params))
    assert len(find_targets(params, FLUX, ".*")) == kernels
    (adapter,) = read(world, "all")
    assert sum(path[-1] == FACTOR_A for path in flatten_dict(adapter.factors)) == kernels


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.7, -1.5)], ids=["one", "two"])
def test_side_path_and_merged_kernels_equal_peft(world, weights, tmp_path):
    oracle, root, params, inputs, predict = world
    oracle.set_adapters(["all", "some"], list(weights))
    factors = combine(list(zip(read(world, "all", "some"), weights)))
    expected = torch_velocity(oracle, inputs)
    close(predict(Adapted(params, factors)), expected)
    oracle.disable_adapters()
    assert test_flux.relative_error(torch_velocity(oracle, inputs), expected) > 0.1
    oracle.enable_adapters()

    merged = merge(params, factors)
    close(predict(merged), expected)
    fused = FluxTransformer2DModel.from_pretrained(root / "base")
    for name in ("all", "some"):
        fused.load_lora_adapter(root / name, adapter_name=name, prefix=None, use_safetensors=True)
    fused.set_adapters(["all", "some"], list(weights))
    fused.fuse_lora(adapter_names=["all", "some"])
    fused.unload_lora()
    fused.save_pretrained(tmp_path)
    for ours, theirs in zip(
        jax.tree.leaves(merged), jax.tree.leaves(load_params(tmp_path, params, FLUX))
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    for back, base in zip(jax.tree.leaves(unmerge(merged, factors)), jax.tree.leaves(params)):
        np.testing.assert_allclose(back, base, atol=1e-6)


def test_gradients_of_the_factors_equal_peft(world, tmp_path):
    oracle, _, params, inputs, _ = world
    (adapter,) = read(world, "all")
    oracle.set_adapters(["all"])
    tensors = {name: torch.tensor(np.asarray(value)) for name, value in inputs.items()}
    output = oracle(**tensors).sample
    weights = np.random.default_rng(1).normal(size=output.shape).astype(np.float32)
    (output * torch.tensor(weights)).sum().backward()
    gradients = {
        key.replace(".all.", "."): parameter.grad.numpy()
        for key, parameter in oracle.named_parameters()
        if ".all." in key
    }
    oracle.zero_grad()
    save_file(gradients, tmp_path / ADAPTER_FILE)
    expected = load_adapter(tmp_path, params, FLUX).factors

    model = FluxTransformer(CONFIG)

    def objective(factors):
        inside = combine([(Adapter(factors, adapter.scales), 1.0)])
        return (model.apply(variables(Adapted(params, inside)), **inputs) * weights).sum()

    found = jax.jit(jax.grad(objective))(adapter.factors)
    assert max(jax.tree.leaves(jax.tree.map(test_flux.relative_error, found, expected))) < 5e-4


def test_diffusers_opens_what_we_write_and_reading_it_gives_the_same(world, tmp_path):
    _, root, params, inputs, predict = world
    for name, adapter in zip(("all", "some"), read(world, "all", "some")):
        save_adapter(tmp_path / name, adapter, FLUX)
        theirs, ours = (load_file(folder / name / ADAPTER_FILE) for folder in (root, tmp_path))
        assert_same(ours, {f"transformer.{key}": value for key, value in theirs.items()})
        again = load_adapter(tmp_path / name, params, FLUX)
        assert_same(again, adapter)

        fresh = FluxTransformer2DModel.from_pretrained(root / "base")
        parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
        pipeline = FluxFillPipeline(transformer=fresh, scheduler=None, **parts)
        pipeline.load_lora_weights(tmp_path / name)
        close(
            predict(Adapted(params, combine([(adapter, 1.0)]))),
            torch_velocity(fresh, inputs),
        )


@pytest.mark.parametrize("layout", ["pipeline", "kohya suffixes", "peft", "bfloat16"])
def test_other_spellings_of_the_same_adapter(world, layout, tmp_path):
    oracle, root, params, _, _ = world
    (adapter,) = read(world, "all")
    tensors = load_file(root / "all" / ADAPTER_FILE)
    if layout == "pipeline":
        FluxFillPipeline.save_lora_weights(
            tmp_path,
            transformer_lora_layers={k: torch.tensor(v) for k, v in tensors.items()},
            transformer_lora_adapter_metadata=oracle.peft_config["all"].to_dict(),
        )
    elif layout == "kohya suffixes":
        names = (("lora_A", "lora_down"), ("lora_B", "lora_up"))
        renamed = {
            f"transformer.{key.replace(*pair)}": value
            for key, value in tensors.items()
            for pair in names
            if pair[0] in key
        }
        alphas = {f"{key.partition('.lora_')[0]}.alpha": np.array(6, np.float32) for key in renamed}
        save_file(renamed | alphas, tmp_path / ADAPTER_FILE)
    elif layout == "peft":
        named = {f"base_model.model.{key}": value for key, value in tensors.items()}
        save_file(named, tmp_path / "adapter_model.safetensors")
        oracle.peft_config["all"].save_pretrained(tmp_path)
    else:
        named = {key: value.astype(jnp.bfloat16) for key, value in tensors.items()}
        with safe_open(root / "all" / ADAPTER_FILE, "numpy") as file:
            save_file(named, tmp_path / ADAPTER_FILE, metadata=file.metadata())
        adapter = adapter._replace(
            factors=jax.tree.map(
                lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), adapter.factors
            )
        )
    assert_same(load_adapter(tmp_path, params, FLUX), adapter)


def test_all_mismatches_are_listed_at_once(world, tmp_path):
    _, root, params, _, _ = world
    tensors = load_file(root / "some" / ADAPTER_FILE)
    first = "single_transformer_blocks.1.attn.to_q"
    second, third = "transformer_blocks.1.ff.net.2", "transformer_blocks.1.attn.to_q"
    del tensors[f"{first}.lora_B.weight"]
    tensors[f"{second}.lora_A.weight"] = np.zeros((2, 5), np.float32)
    tensors["single_transformer_blocks.2.attn.to_q.lora_A.weight"] = np.zeros((2, 32), np.float32)
    tensors["text_encoder.layers.0.lora_A.weight"] = np.zeros((2, 32), np.float32)
    tensors[f"{first}.lora_C"] = np.zeros(2, np.float32)
    tensors[f"{third}.alpha"] = np.zeros(2, np.float32)
    path = tmp_path / "odd.safetensors"
    save_file(tensors, path)
    with pytest.raises(ValueError, match="odd.safetensors does not fit the model") as error:
        load_adapter(path, params, FLUX)
    for expected in (
        f"{first}: lora_B is missing in the file",
        f"{first}.lora_C: not a lora_A",
        rf"{second}: lora_A (2, 5), expected [r, 128]",
        f"{third}: alpha has shape (2,)",
        "single_transformer_blocks.2.attn.to_q: in the file, but not in the model",
    ):
        assert expected in str(error.value)
    assert len(str(error.value).splitlines()) == 6


def test_broken_and_missing_files_are_named(world, tmp_path):
    _, root, params, _, _ = world
    with pytest.raises(FileNotFoundError, match=f"no adapter in {tmp_path}"):
        load_adapter(tmp_path, params, FLUX)
    whole = (root / "some" / ADAPTER_FILE).read_bytes()
    (tmp_path / ADAPTER_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated or not safetensors"):
        load_adapter(tmp_path, params, FLUX)
    with pytest.raises(ValueError, match=r"'\(' is not a regular expression"):
        find_targets(params, FLUX, "(")
    with pytest.raises(ValueError, match="'to_q' matches the name of no linear layer"):
        find_targets(params, FLUX, "to_q")


def test_a_fresh_adapter_changes_nothing_and_keeps_out_of_other_layers(world, tmp_path):
    """Layers that the expression leaves out have no gradient, and are not written."""
    _, _, params, inputs, predict = world
    targets = find_targets(params, FLUX, SECOND_BLOCKS)
    abstract = abstract_factors(params, dict.fromkeys(targets, 3))
    factors = first_factors(jax.random.key(0), abstract, targets)
    np.testing.assert_array_equal(predict(Adapted(params, factors)), predict(params))
    model = FluxTransformer(CONFIG)

    def objective(factors):
        return jnp.square(model.apply(variables(Adapted(params, factors)), **inputs)).sum()

    gradient = flatten_dict(jax.jit(jax.grad(objective))(factors))
    for path, leaf in gradient.items():
        assert not leaf[0].any() and leaf[1].any() == (path[-1] != FACTOR_A), path

    save_adapter(tmp_path / "fresh", uniform_adapter(factors, 0.5), FLUX)
    with safe_open(tmp_path / "fresh" / ADAPTER_FILE, "numpy") as file:
        assert len(file.keys()) == 8 and all("blocks.1." in key for key in file.keys())
        settings = json.loads(file.metadata()[METADATA])
    assert (settings["transformer.r"], settings["transformer.lora_alpha"]) == (3, 1.5)
    assert_same(load_adapter(tmp_path / "fresh", params, FLUX).factors, factors)


def test_norms_and_differences_of_products_without_the_products(world):
    adapter, other = read(world, "all", "all")
    other = other._replace(factors=jax.tree.map(lambda leaf: leaf * 0.9, other.factors))
    zero = jax.tree.map(jnp.zeros_like, world[2])
    ones = [uniform_adapter(one.factors, 1.0) for one in (adapter, other)]
    deltas = [merge(zero, combine([(one, 1.0)])) for one in ones]
    expected = np.sqrt(
        sum(
            np.sum((np.float64(a) - np.float64(b)) ** 2)
            for a, b in zip(*map(jax.tree.leaves, deltas), strict=True)
        )
    )
    found = product_norm(difference(adapter.factors, other.factors))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert product_norm(difference(adapter.factors, adapter.factors)) == 0.0


def test_mesh_of_eight_splits_the_factors_and_gives_the_same_velocity(world):
    _, root, params, inputs, predict = world
    (adapter,) = read(world, "all")
    expected = predict(Adapted(params, combine([(adapter, 1.0)])))
    mesh = make_mesh(2, 2, 2)
    abstract = test_flux.abstract_params(CONFIG, inputs)
    shardings = logical_shardings(abstract, mesh)
    placed = jax.device_put(params, shardings)
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), placed
    )
    split = load_adapter(root / "all", like, FLUX)
    model = FluxTransformer(CONFIG)
    with jax.set_mesh(mesh):
        found = jax.jit(lambda weights, inputs: model.apply(variables(weights), **inputs))(
            Adapted(placed, combine([(split, 1.0)])), inputs
        )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    for path, leaf in flatten_dict(split.factors).items():
        if "transformer_blocks" in path[0]:
            assert leaf.size == 2 * leaf.addressable_shards[0].data.size, path
