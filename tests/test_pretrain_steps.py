"""Pre-training steps: the autoencoder's loss by hand, the editor's by other means; both learn."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from compilations import compilations

from onereward_jax.common.rng import stream
from onereward_jax.convert import EditorTokenizers
from onereward_jax.mini.mini_tokenizers import clip_tokenizer, t5_tokenizer
from onereward_jax.mini.pretrain.flow_step import make_flow_step
from onereward_jax.mini.pretrain.vae_step import VaeLoss, make_vae_step, vae_loss
from onereward_jax.models.clip import ClipTextConfig, ClipTextModel
from onereward_jax.models.t5 import T5Config, T5Encoder
from onereward_jax.parallel import abstract_arrays, make_mesh, shard_batch
from onereward_jax.policy import TextEncoder, TextParams
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.policy.text_encoders import TokenIds
from onereward_jax.training.metrics import scalars
from onereward_jax.training.optimizer import OptimizerConfig, make_optimizer
from onereward_jax.training.train_state import abstract_state, place_state, shardings_of

# A large epsilon keeps Adam from blowing rounding errors of tiny gradients up to full updates.
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=0.02, eps=1e-2, clip_norm=1e6))
EMA_DECAY = 0.9
SEED, STEPS = 11, 12
SINGLE, SPREAD = (1, 1, 1), (2, 2, 2)
WEIGHTS = VaeLoss(kl_weight=0.5, squared_weight=0.25)
PROMPTS = ("", *tiny_models.PROMPTS, "a sign")
EDITOR = tiny_models.models().editor


@functools.cache
def mesh_of(sizes):
    return make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])


@functools.cache
def text_encoder() -> TextEncoder:
    tokenizers = EditorTokenizers(
        clip=clip_tokenizer(PROMPTS, max_length=8), t5=t5_tokenizer(PROMPTS, max_length=6)
    )
    clip = ClipTextConfig(
        vocab_size=len(tokenizers.clip),
        hidden_size=tiny_models.POOLED_WIDTH,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        eos_token_id=tokenizers.clip.eos_token_id,
    )
    t5 = T5Config(
        vocab_size=len(tokenizers.t5),
        d_model=tiny_models.TEXT_WIDTH,
        d_kv=4,
        d_ff=8,
        num_layers=1,
        num_heads=2,
        relative_attention_num_buckets=4,
    )
    return TextEncoder(ClipTextModel(clip), T5Encoder(t5), tokenizers, 6)


@functools.cache
def shapes(part: str, sizes) -> Any:
    """Shapes and shardings of the parameters of one of the two trainings."""
    mesh, text = mesh_of(sizes), text_encoder()
    if part == "vae":
        return abstract_params(EDITOR, mesh).vae
    key, ids = jax.random.key(0), jnp.zeros((mesh.size, 1), jnp.int32)
    return {
        "transformer": abstract_params(EDITOR, mesh).transformer,
        "clip": abstract_arrays(jax.eval_shape(text.clip.init, key, ids)["params"], mesh),
        "t5": abstract_arrays(jax.eval_shape(text.t5.init, key, ids)["params"], mesh),
    }


def random_params(part: str) -> Any:
    """Noise everywhere, around 1 in the scales of norms."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key in ("scale", "weight") else 0.0
        return np.float32(centre + 0.2 * rng.normal(size=leaf.shape))

    return jax.tree_util.tree_map_with_path(draw, shapes(part, SINGLE))


@functools.cache
def step_of(part: str, sizes):
    abstract = abstract_state(shapes(part, sizes), OPTIMIZER, mesh_of(sizes), with_ema=True)
    rest = (OPTIMIZER, EMA_DECAY, abstract, mesh_of(sizes), SEED)
    if part == "vae":
        return make_vae_step(EDITOR.vae, WEIGHTS, *rest)
    text = text_encoder()
    return make_flow_step(EDITOR, text, text.tokenize(PROMPTS), *rest)


def first_state(part: str, sizes):
    params = jax.device_put(random_params(part), shardings_of(shapes(part, sizes)))
    return place_state(params, OPTIMIZER, mesh_of(sizes), with_ema=True)


@functools.cache
def scenes() -> dict[str, Any]:
    """Random pictures and masks, what the autoencoder makes of them, and the fill condition."""
    drawn = tiny_models.rl_batch()
    image, mask = drawn["image"], drawn["mask"]
    vae = random_params("vae")

    @jax.jit
    def encode(image, mask):
        latents = [EDITOR.encode_image(vae, part) for part in (image, image * (1.0 - mask))]
        return *latents, EDITOR.encode_condition(vae, image, mask)

    latents, masked, condition = encode(image, mask)
    return {
        "vae": {"image": image, "index": drawn["index"]},
        "flow": {
            "latents": np.asarray(latents),
            "masked_latents": np.asarray(masked),
            "mask": mask.astype(np.uint8),
            "prompt": np.arange(len(image), dtype=np.int32) % len(PROMPTS),
            "index": drawn["index"],
        },
        "condition": condition,
    }


def run(part: str, sizes, steps: int):
    """The last state on its devices, and states (the first included) and metrics on the host.

    Compiled once at most.
    """
    state, batch = first_state(part, sizes), shard_batch(scenes()[part], mesh_of(sizes))
    states, metrics = [jax.device_get(state)], []
    with compilations() as compiled:
        for _ in range(steps):
            state, measured = step_of(part, sizes)(state, batch)
            states.append(jax.device_get(state))
            metrics.append(scalars(measured))
    assert compiled.count("jit(step)") <= 1
    return state, states, metrics


@functools.cache
def history(part: str):
    """Some steps on the same batch, on one device; and the loss of the last weights under the
    noise of the first step, which the step number decides."""
    state, states, metrics = run(part, SINGLE, STEPS)
    again = state._replace(step=jnp.zeros_like(state.step))
    _, measured = step_of(part, SINGLE)(again, shard_batch(scenes()[part], mesh_of(SINGLE)))
    return states, metrics, scalars(measured)["loss"]


def silent_vae(mean: float, log_variance: float, grey: float):
    """Weights under which every picture has one known distribution, and every latent is grey."""
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes("vae", SINGLE))
    channels = EDITOR.vae.config.latent_channels
    params["encoder"]["conv_out"]["bias"][:channels] = mean
    params["encoder"]["conv_out"]["bias"][channels:] = log_variance
    params["decoder"]["conv_out"]["bias"][:] = grey
    return params


@functools.cache
def jitted_vae_loss():
    def loss(params, images, key, weights):
        return vae_loss(EDITOR.vae, params, images, key, weights)

    return jax.jit(loss, static_argnames="weights")


@pytest.mark.parametrize(
    "mean, log_variance, kl",
    [(0.0, 0.0, 0.0), (2.0, 0.0, 2.0), (0.0, np.log(4.0), 0.5 * (3 - np.log(4.0)))],
)
def test_autoencoder_loss_by_hand(mean, log_variance, kl):
    """Pictures half white, half 0.2, rebuilt as 0.5; no KL at the standard normal."""
    images = np.full((8, 4, 4, 3), 0.2, np.float32)
    images[::2] = 1.0
    params, key = silent_vae(mean, log_variance, 0.5), jax.random.key(0)
    absolute, squared = (0.5 + 0.3) / 2, (0.25 + 0.09) / 2
    loss, metrics = jitted_vae_loss()(params, images, key, weights=VaeLoss(0.7, 3.0))
    found = scalars(metrics)
    assert float(loss) == pytest.approx(absolute + 3.0 * squared + 0.7 * kl, rel=1e-5)
    assert found["loss"] == pytest.approx(float(loss))
    assert found["squared_error"] == pytest.approx(squared, rel=1e-5)
    assert found["kl"] == pytest.approx(kl, abs=1e-6)


def test_autoencoder_decodes_a_sample_of_what_it_encodes():
    """The key matters as much as the deviation is wide; without any, the mean is decoded."""
    params, images = random_params("vae"), scenes()["vae"]["image"]
    channels, last = EDITOR.vae.config.latent_channels, params["encoder"]["conv_out"]
    last["kernel"][..., channels:] = 0.0
    spreads, weights = [], VaeLoss(0.0, 1.0)
    for log_variance in (-30.0, -4.0, 0.0):
        last["bias"][channels:] = log_variance
        found = [
            scalars(jitted_vae_loss()(params, images, jax.random.key(seed), weights=weights)[1])
            for seed in range(2)
        ]
        spreads.append(abs(found[0]["squared_error"] - found[1]["squared_error"]))
        if log_variance == -30.0:
            rebuilt = jax.jit(EDITOR.vae.apply)({"params": params}, images)
            expected = float(jnp.mean(jnp.square(rebuilt - images)))
            assert found[0]["squared_error"] == pytest.approx(expected, rel=1e-4)
    assert spreads[0] < 1e-4 < spreads[1] < spreads[2]


def test_editor_loss_is_flow_matching_under_the_fill_condition():
    """Taken apart: condition from pictures, embeddings by prompt, velocity, squared error."""
    batch, text, params = scenes()["flow"], text_encoder(), random_params("flow")
    noise_key, sigma_key = jax.random.split(stream(SEED, "flow_matching", 0))
    noise = jax.random.normal(noise_key, batch["latents"].shape)
    sigma = jax.nn.sigmoid(jax.random.normal(sigma_key, (len(noise),)))
    ids = text.tokenize([PROMPTS[number] for number in batch["prompt"]])

    @jax.jit
    def velocity(params, latents):
        tokens = TokenIds(*map(jnp.asarray, ids))
        embeds = text.embed(TextParams(params["clip"], params["t5"]), tokens)
        return EDITOR.velocity(
            params["transformer"], latents, scenes()["condition"], embeds, sigma, 1.0
        )

    level = sigma[:, None, None]
    found = velocity(params, (1 - level) * batch["latents"] + level * noise)
    expected = float(jnp.mean(jnp.square(found - (noise - batch["latents"]))))
    assert history("flow")[1][0]["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("part, reached", [("vae", 0.8), ("flow", 0.9)])
def test_learning_lowers_the_loss_and_moves_every_part(part, reached):
    """The text encoders of an editor learn along with its transformer."""
    states, metrics, last_loss = history(part)
    assert last_loss < reached * metrics[0]["loss"]
    parts = {part: lambda params: params}
    if part == "flow":
        parts = {name: lambda params, name=name: params[name] for name in states[0].params}
        assert set(parts) == {"transformer", "clip", "t5"}
    for name, choose in parts.items():
        pairs = zip(*(jax.tree.leaves(choose(states[at].params)) for at in (0, -1)))
        moved = [np.abs(after - before).max() > 1e-6 for before, after in pairs]
        assert np.mean(moved) > 0.9, name


@pytest.mark.parametrize("part", ["vae", "flow"])
def test_average_follows_the_weights_by_its_decay(part):
    states = history(part)[0]
    jax.tree.map(np.testing.assert_array_equal, states[0].ema, states[0].params)
    for before, after in zip(states, states[1:]):
        expected = jax.tree.map(
            lambda mean, leaf: EMA_DECAY * mean + (1 - EMA_DECAY) * leaf, before.ema, after.params
        )
        for ours, theirs in zip(jax.tree.leaves(after.ema), jax.tree.leaves(expected)):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        assert after.step == before.step + 1 and after.refused == 0


@pytest.mark.parametrize("part", ["vae", "flow"])
def test_the_same_on_a_mesh_of_eight(part):
    state, states, metrics = run(part, SPREAD, 2)
    expected, expected_metrics, _ = history(part)
    for found, wanted in zip(states, expected, strict=False):
        for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=5e-5, atol=5e-5)
    for found, wanted in zip(metrics, expected_metrics, strict=False):
        assert found == pytest.approx(wanted, rel=5e-4, abs=1e-5)
    split = [
        leaf.size > leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(state.params)
    ]
    assert np.mean(split) > 0.3
