"""The mini world's base judge: Qwen2.5-VL's architecture, pre-trained to compare damaged images.

The preferences of people (or of the oracle) are learned later, in the stage `reward`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import grain
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree
from transformers import PreTrainedTokenizerBase

from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.common.pixels import from_uint8
from onereward_jax.common.rng import stream
from onereward_jax.convert import Weights, preprocessor_config, write_judge_folder
from onereward_jax.mini.mini_tokenizers import qwen_tokenizer
from onereward_jax.mini.pretrain.autoencoder import read_autoencoder
from onereward_jax.mini.pretrain.damage import Reconstruct, pair_table
from onereward_jax.mini.pretrain.train import optimizer_config, train_model
from onereward_jax.mini.world import prompts
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VL, Qwen2_5_VLConfig, init_params
from onereward_jax.parallel import logical_shardings, mesh_jit, shard_batch
from onereward_jax.reward import ImageProcessor, Jitter, QueryTokenizer, Scorer, packaged_template
from onereward_jax.stages.settings import from_section
from onereward_jax.tasks import DIMENSIONS, TASKS
from onereward_jax.training.metrics import scalars
from onereward_jax.training.preference_loss import preference_metrics
from onereward_jax.training.reward_step import (
    RewardConfig,
    abstract_reward_state,
    first_reward_state,
    make_answers,
    make_reward_step,
)

PIXELS = 112 * 112
"""Images of 64 × 64 are enlarged to 112 × 112: 8 × 8 patches, 16 language tokens."""

SUFFIX_TOKENS = 40
"""Tokens of the end of a query that quotes the prompt, padding included."""

HELD_OUT = 512
"""Number of synthetic pairs on held-out photographs, for the reported accuracy."""


def judge_config(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The config.json of a Qwen2.5-VL with about a million parameters."""
    token = tokenizer.convert_tokens_to_ids
    return {
        "model_type": "qwen2_5_vl",
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "tie_word_embeddings": True,
        "text_config": {
            "model_type": "qwen2_5_vl_text",
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "initializer_range": 0.06,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [4, 6, 6],
                "rope_theta": 1e4,
            },
        },
        "vision_config": {
            "model_type": "qwen2_5_vl_vision",
            "depth": 4,
            "hidden_act": "silu",
            "hidden_size": 96,
            "in_channels": 3,
            "initializer_range": 0.06,
            "intermediate_size": 192,
            "num_heads": 4,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "tokens_per_second": 2,
            "out_hidden_size": 128,
            "window_size": 56,
            "fullatt_block_indexes": [1, 3],
        },
    }


def train_judge(context: StageContext) -> Results:
    """Trains in two phases and writes the folder `judge`; returns accuracy on held-out pairs.

    The first phase trains on clean images. The second one trains on images as the judge gets them
    later: jittered, some of them reconstructed by the autoencoder, with more questions about the
    prompt. Training on the second kind from the start learns next to nothing in the same time.
    """
    config, mesh = context.config, context.mesh
    size = config.pretrain.image_size
    tokenizer = qwen_tokenizer([*prompts(), *packaged_template().texts()])
    model_config = judge_config(tokenizer)
    preprocessor = preprocessor_config(
        model_config["vision_config"], min_pixels=PIXELS, max_pixels=PIXELS
    )
    processor = ImageProcessor.from_dict(preprocessor)
    queries = QueryTokenizer(tokenizer, processor.tokens_per_image(size, size), SUFFIX_TOKENS)
    model = Qwen2_5_VL(Qwen2_5_VLConfig.from_dict(model_config))
    scorer = Scorer(model, processor, queries.layout)

    clear = functools.partial(pair_table, size=size, seed=config.seed, prompt_share=0.25)
    seeing = _train(
        context, "judge", scorer, queries, clear, lambda: _random_params(model, config.seed, mesh)
    )
    painted = functools.partial(
        pair_table,
        size=size,
        seed=config.seed,
        prompt_share=0.5,
        reconstruct=_autoencoder(context.folder / "vae"),
    )
    params = _train(context, "judge_refined", scorer, queries, painted, lambda: seeing)

    path = context.folder / "judge_refined_held_out.safetensors"
    held_out = painted(path, count=HELD_OUT, split="test")
    held_out = shard_batch(_labelled(_with_queries(held_out, queries)), mesh)
    answers = make_answers(scorer, RewardConfig(), mesh)(params, held_out)
    measured = scalars(preference_metrics(answers, held_out))
    write_judge_folder(
        context.folder / "judge",
        model=Weights(jax.device_get(params), model_config),
        tokenizer=tokenizer,
        preprocessor=preprocessor,
    )
    return {f"judge_{name}": round(value, 3) for name, value in measured.items()}


def _train(
    context: StageContext,
    name: str,
    scorer: Scorer,
    queries: QueryTokenizer,
    make_pairs: Callable[..., dict[str, np.ndarray]],
    create: Callable[[], PyTree],
) -> PyTree:
    """The judge's parameters after the training run `name`, which starts from `create()`."""
    section, mesh = context.config.pretrain[name], context.mesh
    where = f"config.pretrain.{name}"
    reward = from_section(
        RewardConfig,
        section,
        where,
        optimizer=optimizer_config(context.config, name),
        jitter=from_section(Jitter, section.jitter, f"{where}.jitter"),
    )
    table = make_pairs(
        context.folder / f"{name}_pairs.safetensors", count=section.pairs, split="train"
    )
    pairs = _with_queries(table, queries)

    def draw(index: int, rng: np.random.Generator) -> dict[str, Any]:
        row = int(rng.integers(section.pairs))
        pair = {key: array[row] for key, array in pairs.items()}
        return {**_labelled(pair), "index": np.int32(index)}

    batches = grain.MapDataset.range(2**30).seed(context.config.seed).random_map(draw)
    return train_model(
        context,
        name,
        make_reward_step(scorer, reward, mesh),
        abstract_reward_state(scorer, reward, mesh),
        lambda: first_reward_state(reward, create(), mesh),
        batches.batch(section.batch_size),
    ).params


def _autoencoder(folder: Path) -> Reconstruct:
    """A function that reconstructs images from the mean of their latents."""
    vae, params = read_autoencoder(folder)
    return functools.partial(jax.jit(vae.apply), {"params": params})


def _with_queries(table: dict[str, np.ndarray], queries: QueryTokenizer) -> dict[str, np.ndarray]:
    """The table with tokenised queries instead of prompts, as in `reward_step.Pairs`."""
    known = prompts()
    tasks = [TASKS[task] for task in table["task"]]
    asked = queries.encode_dimensions(
        tasks,
        [DIMENSIONS[task][column] for task, column in zip(tasks, table["dimension"])],
        [known[number] for number in table["prompt"]],
    )
    rest = {name: array for name, array in table.items() if name != "prompt"}
    return rest | {
        "query_prefix": asked.prefix,
        "query_suffix": asked.suffix,
        "query_suffix_mask": asked.suffix_mask,
    }


def _labelled(pairs: dict[str, Any]) -> dict[str, Any]:
    """Winner and loser, uint8, as first and second image in [-1, 1] with label 1.

    Of one pair, or of several in arrays with a leading axis.
    """
    rest = {name: array for name, array in pairs.items() if name not in ("winner", "loser")}
    return rest | {
        "first": from_uint8(pairs["winner"]),
        "second": from_uint8(pairs["loser"]),
        "label": np.ones_like(pairs["task"], np.float32),
    }


def _random_params(model: Qwen2_5_VL, seed: int, mesh: Mesh) -> PyTree:
    """Random parameters, created in their shards."""
    init = functools.partial(init_params, model, stream(seed, "judge_init"))
    shardings = logical_shardings(jax.eval_shape(init), mesh)
    return mesh_jit(lambda: nn.meta.unbox(init()), mesh, out_shardings=shardings)()
