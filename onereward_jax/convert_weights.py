"""Convert a FLUX transformer: a diffusers folder to a single file for ComfyUI, or back.

    python -m onereward_jax.convert_weights runs/mini/rl/ema fill.safetensors --dtype=bfloat16
    python -m onereward_jax.convert_weights flux1-fill-dev.safetensors flux1-fill-dev/transformer

OUT is a single file if it ends in .safetensors, otherwise a folder. One tensor at a time is in
memory. `edit --transformer` and `config.models.transformer` read both without a conversion.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.listing import first_of
from onereward_jax.common.user_errors import CommandParser, run_command
from onereward_jax.convert import (
    FLUX,
    component_config,
    read_single_file,
    resolve_weights,
    single_file_config,
)
from onereward_jax.convert.atomic_folder import atomic_folder
from onereward_jax.convert.gguf_file import GgufTensor
from onereward_jax.convert.load import fit_tensors
from onereward_jax.convert.safetensors_reader import DTYPES, TensorOnDisk, find_tensors
from onereward_jax.convert.safetensors_writer import Shape, divide
from onereward_jax.convert.save import MAX_SHARD_BYTES, write_json, write_shards
from onereward_jax.convert.single_file_writer import (
    FP8,
    SINGLE_FILE_DTYPES,
    cast_weights,
    rewrite_single_file,
)
from onereward_jax.convert.tensor_names import flat_leaves, unbox
from onereward_jax.convert.tensor_views import ScaledTensor, StackedRows
from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.parallel.progress import announce
from onereward_jax.policy.policy_loader import init_transformer

SUFFIX = ".safetensors"
WRITTEN = re.compile(rf"config\.json|{FLUX.basename}.*\.safetensors(\.index\.json)?")
"""Files of a transformer's folder."""


def parser() -> CommandParser:
    """The options of this command."""
    options = CommandParser(prog="python -m onereward_jax.convert_weights", description=__doc__)
    add = options.add_argument
    add("source", metavar="SOURCE",
        help="folder, .safetensors or .gguf file of a transformer, or one on the hub")  # fmt: skip
    add("out", metavar="OUT", type=Path, help="file.safetensors, or folder to write")
    add("--dtype", choices=SINGLE_FILE_DTYPES,
        help="default: that of most weights; bfloat16 for 8 bits and less")  # fmt: skip
    return options


def run(options: argparse.Namespace) -> None:
    """Converts, atomically.

    Raises:
      FileNotFoundError, ValueError: the source is missing or not a transformer of FLUX, or `OUT`
        cannot hold the dtype.
    """
    out = options.out.expanduser()
    single = out.suffix.lower() == SUFFIX
    if options.dtype == FP8 and not single:
        raise ValueError(f"{FP8} with scales is ComfyUI's: OUT must be a file *{SUFFIX}, not {out}")
    if out.is_dir() if single else out.is_file():
        raise ValueError(f"{out} is a {'folder' if single else 'file'}: name another OUT")
    source = resolve_weights(options.source, "SOURCE")
    check_out(out, source)
    config, tensors = read_transformer(source)
    dtype = options.dtype or usual_dtype(tensors)
    if single:
        with atomic_file(out) as draft:
            rewrite_single_file(draft, tensors, config=config, dtype=dtype)
    else:
        with atomic_folder(out) as draft:
            rewrite_folder(draft, tensors, config, dtype)
    announce(f"written: {out} ({dtype})")


def check_out(out: Path, source: Path) -> None:
    """Raises ValueError if writing `out` would delete the source or files of another kind."""
    if source.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"{out} is SOURCE, or holds it: name another OUT")
    there = [one.name for one in out.iterdir()] if out.is_dir() else []
    others = [name for name in there if not WRITTEN.fullmatch(name)]
    if others:
        raise ValueError(
            f"{out} is a folder with other files: {', '.join(first_of(sorted(others)))}; name a "
            "new OUT, which is replaced as a whole"
        )


def read_transformer(source: Path) -> tuple[dict[str, Any], Mapping[str, TensorOnDisk]]:
    """Config and tensors, by diffusers' names, of a folder, a pipeline's folder or a single file.

    Raises:
      FileNotFoundError, ValueError: it is not a transformer of FLUX.
    """
    if source.is_file():
        file = read_single_file(source)
        config, tensors = single_file_config(file, None), file.tensors
        for note in file.notes:
            announce(f"{source}: {note}")
    else:
        if (source / "model_index.json").is_file():
            source = source / "transformer"
        config, tensors = component_config(source, FLUX), find_tensors(source, FLUX.basename)
    model = FluxTransformer(FluxConfig.from_dict(config))
    leaves = flat_leaves(unbox(jax.eval_shape(lambda: init_transformer(model, jax.random.key(0)))))
    return config, fit_tensors(tensors, leaves, FLUX, config, str(source))[1]


def usual_dtype(tensors: Mapping[str, TensorOnDisk]) -> str:
    """The dtype of most tensors; bfloat16 if that has 8 bits or less."""
    kinds = Counter(
        None if _is_quantized(tensor) else np.dtype(DTYPES[tensor.kind]).name
        for tensor in tensors.values()
        if tensor.kind in DTYPES
    )
    usual = kinds.most_common(1)[0][0] if kinds else None
    return usual if usual in SINGLE_FILE_DTYPES and usual != FP8 else "bfloat16"


def _is_quantized(tensor: TensorOnDisk) -> bool:
    if isinstance(tensor, StackedRows):
        tensor = tensor.parts[0]
    return isinstance(tensor, (ScaledTensor, GgufTensor))


def rewrite_folder(
    folder: Path, tensors: Mapping[str, TensorOnDisk], config: Mapping[str, Any], dtype: str
) -> None:
    """Writes config.json and shards into an existing folder, one tensor in memory at a time.

    Args:
      folder: the folder.
      tensors: diffusers' name -> tensor.
      config: content of config.json.
      dtype: dtype of the written tensors.
    """
    kind, names = np.dtype(jnp.dtype(dtype)), sorted(tensors)
    shapes = [Shape(name, tensors[name].shape, kind) for name in names]
    written = (cast_weights(name, tensors[name][()], kind) for name in names)
    write_json(folder / "config.json", config)
    write_shards(folder, FLUX.basename, divide(shapes, MAX_SHARD_BYTES), written)


def main(argv: list[str] | None = None) -> None:
    """The command, on `argv` or the command line."""
    jax.config.update("jax_platforms", "cpu")  # no accelerator is needed, or taken from others
    run_command(parser(), run, argv)


if __name__ == "__main__":
    main()
