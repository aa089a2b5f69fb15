"""Prompts to embeddings with T5 and CLIP, as in `FluxFillPipeline.encode_prompt`.

The two encoders (4.9 B parameters in FLUX) are not part of a training step: the stage `embed` runs
them once over all distinct prompts and writes a `TextCache`.

Single letters: b batch, l T5 tokens, k CLIP tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Array, Int, Int32

from onereward_jax.convert import EditorTokenizers, Tokenizer
from onereward_jax.models.clip import ClipTextModel
from onereward_jax.models.t5 import T5Encoder
from onereward_jax.parallel import MeshFunction, mesh_jit, replicated
from onereward_jax.policy.model_inputs import PromptEmbeds


class TextParams(NamedTuple):
    """The weights of both encoders."""

    clip: Any
    t5: Any


class TokenIds(NamedTuple):
    """A batch of prompts as padded tokens."""

    clip: Int[Array | np.ndarray, "b k"]
    t5: Int[Array | np.ndarray, "b l"]


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """The static part of the two text encoders.

    Attributes:
      clip, t5: the modules.
      tokenizers: their tokenizers.
      max_sequence_length: T5 tokens per prompt; shorter prompts are padded and the padding is
        *not* masked, because FLUX was trained this way (with 512).

    Raises:
      ValueError: CLIP's tokenizer pads to more tokens than its model has positions, or a tokenizer
        has more tokens than its model has words.
    """

    clip: ClipTextModel
    t5: T5Encoder
    tokenizers: EditorTokenizers
    max_sequence_length: int = 512

    def __post_init__(self) -> None:
        found = self.tokenizers.clip.model_max_length
        limit = self.clip.config.max_position_embeddings
        if found > limit:
            raise ValueError(
                f"CLIP tokenizer: model_max_length {found} is more than the model's "
                f"max_position_embeddings {limit}"
            )

        for name, tokenizer, model in (
            ("CLIP", self.tokenizers.clip, self.clip),
            ("T5", self.tokenizers.t5, self.t5),
        ):
            if (count := len(tokenizer)) > model.config.vocab_size:
                raise ValueError(
                    f"{name} tokenizer: it has {count} tokens, more than the model's vocab_size "
                    f"{model.config.vocab_size}"
                )

    def tokenize(self, prompts: Sequence[str]) -> TokenIds:
        """Token ids of both tokenizers, int32; logs a warning for truncated prompts."""
        clip, t5 = self.tokenizers.clip, self.tokenizers.t5
        return TokenIds(
            clip=_tokenize(clip, prompts, clip.model_max_length, "CLIP"),
            t5=_tokenize(t5, prompts, self.max_sequence_length, "T5"),
        )

    def embed(self, params: TextParams, ids: TokenIds) -> PromptEmbeds:
        """T5's last hidden states and CLIP's pooled output; pure."""
        _, pooled = self.clip.apply({"params": params.clip}, ids.clip)
        return PromptEmbeds(self.t5.apply({"params": params.t5}, ids.t5), pooled)


def make_embed(encoder: TextEncoder, mesh: Mesh) -> MeshFunction:
    """The jitted function (params, ids) -> embeddings; inputs and outputs are replicated."""
    everywhere = replicated(mesh)
    return mesh_jit(encoder.embed, mesh, in_shardings=(None, everywhere), out_shardings=everywhere)


def embed_prompts(
    encoder: TextEncoder,
    params: TextParams,
    prompts: Sequence[str],
    mesh: Mesh,
    batch_size: int = 32,
) -> Iterator[tuple[list[str], PromptEmbeds]]:
    """Yields batches of prompts and their embeddings, as numpy arrays in the encoders' dtype.

    All processes must call it with the same prompts and iterate to the end.

    Args:
      encoder, params: from `load_text_encoder`.
      prompts: any number of prompts.
      mesh: mesh of the parameters.
      batch_size: prompts per batch, rounded up to a multiple of the number of devices; the last
        batch is padded so that the function compiles once.
    """
    embed = make_embed(encoder, mesh)
    batch_size = -(-batch_size // mesh.size) * mesh.size
    for start in range(0, len(prompts), batch_size):
        batch = list(prompts[start : start + batch_size])
        ids = encoder.tokenize(batch)
        fill = ((0, batch_size - len(batch)), (0, 0))
        embeds = embed(params, TokenIds(*(np.pad(part, fill) for part in ids)))
        yield batch, PromptEmbeds(*(np.asarray(part)[: len(batch)] for part in embeds))


def check_prompt(prompt: str) -> None:
    """Checks that a prompt has no lone surrogates, as from a command line that is not UTF-8.

    Raises:
      ValueError: it has.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise ValueError(f"the prompt {prompt!r} is not Unicode text")


def _tokenize(
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    length: int,
    name: str,
) -> Int32[np.ndarray, "b k"]:
    """Token ids, padded and truncated to `length`."""
    for prompt in prompts:
        check_prompt(prompt)
    whole = tokenizer(list(prompts), verbose=False).input_ids
    for prompt, ids in zip(prompts, whole, strict=True):
        if len(ids) > length:
            logging.warning(
                "%s reads only the first %d of %d tokens of the prompt %r",
                name, length, len(ids), prompt,
            )  # fmt: skip
    padded = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="np",
    )
    return padded.input_ids.astype(np.int32)
