"""Loads tokenizers from local folders with transformers, without the hub and without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import transformers  # a lazy module: its classes, and torch where installed, load on first use


@dataclass(frozen=True)
class EditorTokenizers:
    """The two tokenizers of an editor folder.

    Attributes:
      clip: padded to 77 tokens in FLUX; its encoder gives the pooled prompt embedding.
      t5: padded to 512 tokens in FLUX; its encoder gives the token embeddings.
    """

    clip: transformers.PreTrainedTokenizerBase
    t5: transformers.PreTrainedTokenizerBase


VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
"""Every tokenizer folder of the supported models has at least one of these files."""


def load_tokenizer(folder: str | Path) -> transformers.PreTrainedTokenizerBase:
    """Loads the tokenizer of a folder, with the class named in its tokenizer_config.json.

    Raises:
      FileNotFoundError: the folder has no tokenizer_config.json (transformers would take the path
        for a hub repository), or no vocabulary.
      ValueError: transformers cannot read it.
    """
    folder = Path(folder)
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise FileNotFoundError(f"{folder} has no vocabulary: none of {', '.join(VOCABULARIES)}")
    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises plain Exception
        reason = str(error).partition("\n")[0]
        raise ValueError(f"no tokenizer can be read from {folder}: {reason}") from error


def load_tokenizers(folder: str | Path) -> EditorTokenizers:
    """Both tokenizers of an editor folder; raises as `load_tokenizer`."""
    folder = Path(folder)
    return EditorTokenizers(
        clip=load_tokenizer(folder / "tokenizer"), t5=load_tokenizer(folder / "tokenizer_2")
    )
