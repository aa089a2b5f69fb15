"""Loads tokenizers from local folders with transformers, without the hub and without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from onereward_jax.common.listing import shown


@runtime_checkable
class Tokenizer(Protocol):
    """What is used of a `transformers.PreTrainedTokenizerBase`; see there.

    The package transformers itself is imported where a tokenizer is read: it brings along Pillow
    and much else that a program compiled from shapes alone can do without.
    """

    model_max_length: int
    pad_token: str | None

    def __call__(self, text: list[str], **options: Any) -> Any:
        """Token ids and attention masks of texts."""

    def encode(self, text: str, **options: Any) -> list[int]:
        """Token ids of a text."""

    def decode(self, token_ids: list[int], **options: Any) -> str:
        """The text of token ids."""

    def convert_ids_to_tokens(self, ids: int, **options: Any) -> str:
        """The token of an id."""

    def __len__(self) -> int:
        """Number of tokens, with those added."""

    def get_added_vocab(self) -> dict[str, int]:
        """Tokens beside the vocabulary that was learnt, with their ids."""

    def save_pretrained(self, save_directory: Path, **options: Any) -> Any:
        """Writes it to a folder that `load_tokenizer` reads."""


@dataclass(frozen=True)
class EditorTokenizers:
    """The two tokenizers of an editor folder.

    Attributes:
      clip: padded to 77 tokens in FLUX; its encoder gives the pooled prompt embedding.
      t5: padded to 512 tokens in FLUX; its encoder gives the token embeddings.
    """

    clip: Tokenizer
    t5: Tokenizer


VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
"""Every tokenizer folder of the supported models has at least one of these files."""


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Loads the tokenizer of a folder, with the class named in its tokenizer_config.json.

    Raises:
      FileNotFoundError: the folder has no tokenizer_config.json (transformers would take the path
        for a hub repository), or no vocabulary.
      ValueError: transformers cannot read it.
    """
    # Otherwise it warns on import that torch is missing, which tokenizers do not need.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers  # late: see `Tokenizer`

    folder = Path(folder)
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise FileNotFoundError(f"{folder} has no vocabulary: none of {', '.join(VOCABULARIES)}")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises plain Exception
        reason = str(error).partition("\n")[0]
        raise ValueError(f"no tokenizer can be read from {folder}: {reason}") from error
    length = tokenizer.model_max_length
    if isinstance(length, bool) or not isinstance(length, int | float) or not length >= 1:
        raise ValueError(f"{path}: model_max_length is {shown(length)}, an integer from 1 expected")
    return tokenizer


def load_tokenizers(folder: str | Path) -> EditorTokenizers:
    """Both tokenizers of an editor folder; raises as `load_tokenizer`."""
    folder = Path(folder)
    found = EditorTokenizers(
        clip=load_tokenizer(folder / "tokenizer"), t5=load_tokenizer(folder / "tokenizer_2")
    )
    for name, one in (("tokenizer", found.clip), ("tokenizer_2", found.t5)):
        if one.pad_token is None:
            raise ValueError(f"{folder / name} states no pad_token, which fills short prompts")
    return found
