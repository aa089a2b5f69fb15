"""T5 encoder: parity with transformers, forward and gradient; shared relative positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from jax.sharding import PartitionSpec as P
from parity import gradient_of, relative_error
from transformers.models.t5.modeling_t5 import T5Attention

from onereward_jax.convert import T5, load_params
from onereward_jax.models.t5 import T5Config, T5Encoder
from onereward_jax.models.t5.relative_position import relative_position_buckets
from onereward_jax.parallel import logical_shardings, make_mesh

GATED = dict(
    vocab_size=50,
    d_model=24,
    d_kv=8,
    d_ff=40,
    num_layers=2,
    num_heads=4,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=12,
    feed_forward_proj="gated-gelu",
)
DENSE = GATED | dict(d_model=18, d_kv=5, num_layers=3, num_heads=3, feed_forward_proj="relu")
BATCH, LENGTH = 4, 17
TOLERANCE = 2e-4


@pytest.fixture(scope="module", params=[GATED, DENSE], ids=["gated", "dense"])
def pair(request, tmp_path_factory):
    """The torch oracle, our config, parameters read from the oracle's folder, and token ids."""
    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    oracle = transformers.T5EncoderModel(transformers.T5Config(**request.param)).eval()
    for parameter in oracle.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    oracle.save_pretrained(folder)
    config = T5Config.from_dict(oracle.config.to_dict())
    rng = np.random.default_rng(0)
    input_ids = jnp.asarray(rng.integers(0, config.vocab_size, (BATCH, LENGTH)))
    model = T5Encoder(config)
    abstract = jax.eval_shape(model.init, jax.random.key(0), input_ids)["params"]
    return oracle, config, load_params(folder, abstract, T5), input_ids


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_output_and_gradient_equal_transformers(pair, masked, tmp_path):
    oracle, config, params, input_ids = pair
    rng = np.random.default_rng(1)
    mask = (np.arange(LENGTH) < rng.integers(3, LENGTH, (BATCH, 1))).astype(np.int32)
    ours = jnp.asarray(mask) if masked else None
    theirs = torch.tensor(mask) if masked else None

    oracle.zero_grad()
    expected = oracle(torch.tensor(np.asarray(input_ids)), attention_mask=theirs).last_hidden_state
    weights = rng.normal(size=expected.shape).astype(np.float32)
    (expected * torch.tensor(weights)).sum().backward()

    def objective(params):
        output = T5Encoder(config).apply({"params": params}, input_ids, ours)
        return (output * weights).sum(), output

    gradient, output = jax.jit(jax.grad(objective, has_aux=True))(params)
    assert relative_error(output, expected.detach()) <= TOLERANCE

    expected_gradient = gradient_of(oracle, tmp_path, params, T5)
    errors = jax.tree.map(relative_error, gradient, expected_gradient)
    assert max(jax.tree.leaves(errors)) <= TOLERANCE, errors


@pytest.mark.parametrize("buckets, distance", [(32, 128), (8, 12), (20, 50)])
def test_distance_classes_equal_the_original(buckets, distance):
    length = 300
    offset = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    expected = T5Attention._relative_position_bucket(
        offset, num_buckets=buckets, max_distance=distance
    )
    np.testing.assert_array_equal(relative_position_buckets(length, buckets, distance), expected)


@pytest.mark.parametrize("pair", [GATED], ids=["gated"], indirect=True)
def test_mesh_of_eight_gives_the_same_embeddings(pair):
    _, config, params, input_ids = pair
    model = T5Encoder(config)
    expected = model.apply({"params": params}, input_ids)
    mesh = make_mesh(2, 2, 2)
    abstract = jax.eval_shape(model.init, jax.random.key(0), input_ids)["params"]
    shardings = logical_shardings(abstract, mesh)
    query = shardings["encoder"]["block"]["layer_0"]["SelfAttention"]["q"]["kernel"]
    assert query.spec == P(None, ("fsdp", "context"), "tensor")
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, shardings)
        encode = jax.jit(lambda params, ids: model.apply({"params": params}, ids))
        lowered = encode.lower(sharded, input_ids).as_text()
        found = encode(sharded, input_ids)
    assert lowered.count("sdy.sharding_constraint") >= 5
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"feed_forward_proj": "gated-tanh"}, "feed_forward_proj 'gated-tanh'"),
        ({"model_type": "bert"}, "model_type is 'bert'"),
    ],
)
def test_unsupported_config_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        T5Config.from_dict(GATED | change)
