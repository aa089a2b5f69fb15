"""Embeddings equal FluxFillPipeline.encode_prompt's; the cache gives back what it was given."""

from __future__ import annotations

import pickle
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FluxFillPipeline
from torch_pipeline import random_text_encoders

from onereward_jax.parallel import make_mesh
from onereward_jax.policy import (
    PromptEmbeds,
    add_to_text_cache,
    embed_prompts,
    embedded_prompts,
    load_text_encoder,
    open_text_cache,
)

PROMPTS = [
    "a red apple on the table",
    "",
    "remove",
    "the word STOP in white letters, and a small green frog that sits beside the big blue vase",
    "high-definition, perfect composition",
]
LONG = 3
T5_LENGTH, CLIP_LENGTH, BATCH = 14, 32, 3


@pytest.fixture(scope="module")
def pipeline() -> FluxFillPipeline:
    torch.manual_seed(0)
    encoders = random_text_encoders(PROMPTS, CLIP_LENGTH, 2)
    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4)
    return FluxFillPipeline(scheduler=None, vae=vae, transformer=None, **encoders)


@pytest.fixture(scope="module")
def folder(pipeline: FluxFillPipeline, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("editor")
    for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        getattr(pipeline, name).save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("devices", [1, 2])
def test_embeddings_equal_the_pipelines(
    pipeline: FluxFillPipeline, folder: Path, devices: int, caplog: pytest.LogCaptureFixture
) -> None:
    mesh = make_mesh(devices=jax.devices()[:devices])
    encoder, params = load_text_encoder(folder, mesh, max_sequence_length=T5_LENGTH)
    batches = list(embed_prompts(encoder, params, PROMPTS, mesh, batch_size=BATCH))
    assert [prompt for prompts, _ in batches for prompt in prompts] == PROMPTS
    cut = [record.getMessage() for record in caplog.records if "reads only" in record.getMessage()]
    assert {message.split()[0] for message in cut} == {"CLIP", "T5"}
    assert all(PROMPTS[LONG] in message for message in cut)

    with torch.no_grad():
        prompt_embeds, pooled, _ = pipeline.encode_prompt(PROMPTS, max_sequence_length=T5_LENGTH)
    found = [np.concatenate(parts) for parts in zip(*(embeds for _, embeds in batches))]
    assert found[0].shape == (len(PROMPTS), T5_LENGTH, 16)
    np.testing.assert_allclose(found[0], prompt_embeds.numpy(), rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(found[1], pooled.numpy(), rtol=2e-4, atol=2e-5)


def test_clip_tokenizer_longer_than_the_model_is_refused(folder: Path) -> None:
    encoder, _ = load_text_encoder(folder, make_mesh(devices=jax.devices()[:1]))
    config = type(encoder.clip.config)(
        **{**vars(encoder.clip.config), "max_position_embeddings": CLIP_LENGTH - 1}
    )
    with pytest.raises(ValueError, match="model_max_length 32 is more than"):
        type(encoder)(encoder.clip.copy(config=config), encoder.t5, encoder.tokenizers)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_cache_returns_rows_by_prompt(tmp_path: Path, dtype: np.dtype) -> None:
    rng = np.random.default_rng(0)
    embeds = PromptEmbeds(
        rng.normal(size=(5, T5_LENGTH, 8)).astype(dtype), rng.normal(size=(5, 6)).astype(dtype)
    )
    cuts = (slice(0, 3), slice(3, 5))
    batches = [(PROMPTS[cut], PromptEmbeds(*(part[cut] for part in embeds))) for cut in cuts]
    add_to_text_cache(tmp_path / "text", batches)
    cache = pickle.loads(pickle.dumps(open_text_cache(tmp_path / "text")))
    order = [4, 0, 4, 3, 1]
    for found, part in zip(cache.lookup([PROMPTS[i] for i in order]), embeds, strict=True):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, part[order])
    with pytest.raises(ValueError, match="prompt 'a blue apple' is not among the 5 embedded"):
        cache.lookup([PROMPTS[0], "a blue apple"])


def test_a_cache_grows_and_what_it_had_stays_untouched(tmp_path: Path) -> None:
    def batch(value: float, *prompts: str) -> tuple[list[str], PromptEmbeds]:
        rows = len(prompts)
        embeds = np.full((rows, 2, 3), value, np.float32), np.full((rows, 4), value, np.float32)
        return list(prompts), PromptEmbeds(*embeds)

    def files() -> dict[str, int]:
        found = (tmp_path / "text").glob("*.safetensors")
        return {path.name: path.stat().st_mtime_ns for path in found}

    assert embedded_prompts(tmp_path / "text") == frozenset()
    add_to_text_cache(tmp_path / "text", [batch(1, "old", "older")])
    before = files()

    def interrupted():
        yield batch(2, "new")
        raise KeyboardInterrupt

    # what is embedded before a run is stopped is not embedded again
    with pytest.raises(KeyboardInterrupt):
        add_to_text_cache(tmp_path / "text", interrupted())
    with pytest.raises(ValueError, match="prompt_embeds: 1 rows for 2 prompts"):
        add_to_text_cache(tmp_path / "text", [(["a", "b"], batch(0, "a")[1])])
    # left by a run that was killed between the two files of a batch
    (tmp_path / "text" / "embeds-00002.safetensors").write_bytes(b"half")
    add_to_text_cache(tmp_path / "text", [batch(3, "newest")])
    assert before.items() < files().items()
    assert embedded_prompts(tmp_path / "text") == {"old", "older", "new", "newest"}
    found = open_text_cache(tmp_path / "text").lookup(["newest", "older", "new"])
    assert found.prompt_embeds[:, 0, 0].tolist() == [3, 1, 2]
    with pytest.raises(FileNotFoundError, match="run the stage embed"):
        open_text_cache(tmp_path / "nothing")
