"""CLIP text tower: parity with transformers, forward and gradient; where pooling looks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from jax.sharding import PartitionSpec as P
from parity import gradient_of, relative_error

from onereward_jax.convert import CLIP, load_params
from onereward_jax.models.clip import ClipTextConfig, ClipTextModel
from onereward_jax.parallel import logical_shardings, make_mesh

LEGACY = dict(
    vocab_size=50,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=13,
    hidden_act="quick_gelu",
    eos_token_id=2,
)
CURRENT = LEGACY | dict(
    hidden_size=18,
    num_hidden_layers=3,
    num_attention_heads=3,
    hidden_act="gelu",
    layer_norm_eps=1e-3,
    eos_token_id=7,
)
BATCH, LENGTH = 4, 11
TOLERANCE = 2e-4


@pytest.fixture(scope="module", params=[LEGACY, CURRENT], ids=["legacy", "current"])
def pair(request, tmp_path_factory):
    """The torch oracle, our config, parameters read from the oracle's folder, and token ids."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    oracle = transformers.CLIPTextModel(transformers.CLIPTextConfig(**request.param)).eval()
    for parameter in oracle.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    oracle.save_pretrained(folder)
    config = ClipTextConfig.from_dict(oracle.config.to_dict())
    # 49 is the highest id, 7 the configured end: at different places, each more than once
    input_ids = np.random.default_rng(0).integers(8, 49, (BATCH, LENGTH))
    for row, (end, highest) in enumerate([(3, 5), (6, 2), (10, 9), (1, 8)]):
        input_ids[row, end:] = 7
        input_ids[row, [highest, LENGTH - 1]] = 49
        input_ids[row, end] = 7
    input_ids = jnp.asarray(input_ids)
    model = ClipTextModel(config)
    abstract = jax.eval_shape(model.init, jax.random.key(0), input_ids)["params"]
    return oracle, config, load_params(folder, abstract, CLIP), input_ids


def test_outputs_and_gradient_equal_transformers(pair, tmp_path):
    oracle, config, params, input_ids = pair
    expected = oracle(torch.tensor(np.asarray(input_ids)))
    rng = np.random.default_rng(1)
    weights = rng.normal(size=expected.last_hidden_state.shape).astype(np.float32)
    pooled_weights = rng.normal(size=expected.pooler_output.shape).astype(np.float32)
    total = (expected.last_hidden_state * torch.tensor(weights)).sum()
    (total + (expected.pooler_output * torch.tensor(pooled_weights)).sum()).backward()

    def objective(params):
        last, pooled = ClipTextModel(config).apply({"params": params}, input_ids)
        return (last * weights).sum() + (pooled * pooled_weights).sum(), (last, pooled)

    gradient, (last, pooled) = jax.jit(jax.grad(objective, has_aux=True))(params)
    assert relative_error(last, expected.last_hidden_state.detach()) <= TOLERANCE
    assert relative_error(pooled, expected.pooler_output.detach()) <= TOLERANCE

    expected_gradient = gradient_of(oracle, tmp_path, params, CLIP)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected_gradient))
    for (path, found), wanted in zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(expected_gradient)
    ):
        # a key's bias shifts all logits of a query alike: its gradient is zero but for rounding
        bound = TOLERANCE * max(np.abs(wanted).max(), 1e-3 * scale)
        assert np.abs(found - wanted).max() <= bound, path


def test_tokens_after_the_end_do_not_change_the_prompt(pair):
    _, config, params, input_ids = pair
    encode = jax.jit(lambda ids: ClipTextModel(config).apply({"params": params}, ids))
    changed = input_ids.at[:, 6:].set(input_ids[:, 6:][:, ::-1])
    last, changed_last = encode(input_ids)[0], encode(changed)[0]
    np.testing.assert_array_equal(last[:, :6], changed_last[:, :6])
    assert not np.allclose(last[:, 6:], changed_last[:, 6:])


@pytest.mark.parametrize("pair", [LEGACY], ids=["legacy"], indirect=True)
def test_mesh_of_eight_gives_the_same_embeddings(pair):
    _, config, params, input_ids = pair
    model = ClipTextModel(config)
    expected = model.apply({"params": params}, input_ids)
    mesh = make_mesh(2, 2, 2)
    abstract = jax.eval_shape(model.init, jax.random.key(0), input_ids)["params"]
    shardings = logical_shardings(abstract, mesh)
    kernel = shardings["encoder"]["layers"]["mlp"]["fc1"]["kernel"]
    assert kernel.spec == P(None, ("fsdp", "context"), "tensor")
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, shardings)
        encode = jax.jit(lambda params, ids: model.apply({"params": params}, ids))
        lowered = encode.lower(sharded, input_ids).as_text()
        found = encode(sharded, input_ids)
    assert lowered.count("sdy.sharding_constraint") >= 5
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"eos_token_id": [2, 3]}, r"eos_token_id is \[2, 3\]"),
        ({"num_attention_heads": 5}, "num_attention_heads 5 must divide hidden_size 24"),
        ({"model_type": "clip"}, "model_type is 'clip'"),
    ],
)
def test_unsupported_config_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        ClipTextConfig.from_dict(LEGACY | change)


def test_too_long_a_prompt_is_refused():
    config = ClipTextConfig.from_dict(LEGACY)
    with pytest.raises(ValueError, match="14 tokens.*max_position_embeddings=13"):
        jax.eval_shape(ClipTextModel(config).init, jax.random.key(0), jnp.zeros((1, 14), jnp.int32))
