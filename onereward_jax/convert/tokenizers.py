"""Tokenizers from local folders, through transformers, without a hub and without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import transformers  # a lazy module: its classes, and torch where installed, load on first use


@dataclass(frozen=True)
class EditorTokenizers:
    """The two tokenizers of an editor folder.

    Attributes:
      clip: pads to 77 tokens in FLUX; its encoder gives the pooled prompt embedding.
      t5: pads to 512 tokens in FLUX; its encoder gives the token embeddings.
    """

    clip: transformers.PreTrainedTokenizerBase
    t5: transformers.PreTrainedTokenizerBase


VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
"""One of these is in the folder of any tokenizer that the models here have."""


def load_tokenizer(folder: str | Path) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer saved in a folder, of the class that its tokenizer_config.json names.

    Raises:
      FileNotFoundError: the folder holds no tokenizer_config.json (transformers would take the
        path for the name of a hub repository), or no vocabulary.
      ValueError: transformers cannot read it.
    """
    folder = Path(folder)
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise FileNotFoundError(f"{folder} holds no vocabulary: none of {', '.join(VOCABULARIES)}")
    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises no narrower one
        reason = str(error).partition("\n")[0]
        raise ValueError(f"no tokenizer can be read from {folder}: {reason}") from error


def load_tokenizers(folder: str | Path) -> EditorTokenizers:
    """Both tokenizers of an editor folder; raises as `load_tokenizer`."""
    folder = Path(folder)
    return EditorTokenizers(
        clip=load_tokenizer(folder / "tokenizer"), t5=load_tokenizer(folder / "tokenizer_2")
    )
