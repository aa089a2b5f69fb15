"""Edit images with a FLUX Fill editor: fill, extend, remove.

    python -m onereward_jax.edit --model=mini/models/editor --image=cup.png --mask=cup_mask.png \\
      --prompt="a red apple" --out=edited.png

White in the mask: edit here. --image may be a folder with metadata.jsonl, one row per image, e.g.
{"image": "a.jpg", "mask": "a_mask.png", "prompt": "a red apple", "task": "fill"}; --out is then a
folder too.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from onereward_jax.common.user_errors import CommandParser, run_command
from onereward_jax.common.user_path import user_path
from onereward_jax.convert import EDITING, resolve_folder
from onereward_jax.data.metadata import refuse_rows
from onereward_jax.inference import Editor, paste_back
from onereward_jax.inference.edit_defaults import EditDefaults, read_edit_defaults
from onereward_jax.inference.edit_requests import (
    Request,
    is_rows,
    read_edit_rows,
    read_request,
)
from onereward_jax.inference.editor import check_seeds
from onereward_jax.inference.picture_io import editing_size
from onereward_jax.parallel.compilation_cache import use_compilation_cache
from onereward_jax.parallel.cpu_threads import set_cpu_threads
from onereward_jax.parallel.progress import ProgressBar, announce, progress_bar
from onereward_jax.policy.noise_schedule import first_step
from onereward_jax.policy.text_encoders import check_prompt
from onereward_jax.tasks import COMMAND_TASKS, Task

DTYPES = ("float32", "bfloat16")
STATED = f"or what {EDITING} in the editor's folder states"


def parser() -> CommandParser:
    """The options of this command."""
    options = CommandParser(prog="python -m onereward_jax.edit", description=__doc__)
    add = options.add_argument
    add("--model", required=True, help="folder of the editor (diffusers layout)")
    add("--transformer",
        help="transformer, a folder or file, to use instead of the editor's own")  # fmt: skip
    add("--lora", action="append", default=[], type=weighted, metavar="PATH[:WEIGHT]",
        help="LoRA adapter, file or folder; may be repeated")  # fmt: skip
    add("--image", required=True, type=user_path, help="image, or folder with metadata.jsonl")
    add("--mask", type=user_path, help="image whose white pixels are edited")
    add("--prompt", default="", help="prompt; optional for remove and extend")
    add("--task", help=f"one of {', '.join(COMMAND_TASKS)} (default fill)")
    add("--pad", help="for extend: pixels to add, left,top,right,bottom, instead of a mask")
    add("--out", required=True, type=user_path, help="image to write, or folder")
    add("--negative_prompt", default="nsfw", help="negative prompt (default %(default)s)")
    add("--true_cfg_scale", type=float,
        help=f"true classifier-free guidance, 1 for none (default 4; {STATED})")  # fmt: skip
    add("--guidance_scale", type=float,
        help=f"embedded (distilled) guidance of FLUX (default 1; {STATED})")  # fmt: skip
    add("--steps", type=int, help=f"sampling steps (default 50; {STATED})")
    add("--strength", type=float, default=1.0,
        help="below 1: start from the noised source image (default %(default)s)")  # fmt: skip
    add("--height", type=int, help="height of the result (default: that of the source)")
    add("--width", type=int, help="width of the result (default: that of the source)")
    add("--seed", type=int, default=0, help="noise seed; + row index in a folder (default 0)")
    add("--batch_size", type=int, default=1, help="images of a folder per batch (default 1)")
    add("--dtype", choices=DTYPES, help="default: float32 on CPU, bfloat16 on TPU and GPU")
    add("--paste_back", action=argparse.BooleanOptionalAction,
        help=f"keep the source outside the mask, at its size (default off; {STATED})")  # fmt: skip
    add("--feather", type=int, default=8,
        help="blending width of --paste_back in pixels (default %(default)s)")  # fmt: skip
    return options


def weighted(text: str) -> tuple[str, float]:
    """Parses "path:weight", or "path" with weight 1.

    Raises:
      argparse.ArgumentTypeError: the weight is infinite or NaN, or there is no path.
    """
    path, colon, end = text.rpartition(":")
    try:
        weight = float(end) if colon else 1.0
    except ValueError:  # the colon is part of the path
        return text, 1.0
    if not math.isfinite(weight):
        raise argparse.ArgumentTypeError(f"the weight of {path} is {end}, a number expected")
    if not (path if colon else text):
        raise argparse.ArgumentTypeError(f"{text!r} names no file or folder")
    return (path if colon else text), weight


def run(options: argparse.Namespace) -> None:
    """Checks the inputs, loads the editor, edits and writes.

    Raises:
      FileNotFoundError, ValueError: as `plan` and `Editor`, or an option is out of range.
    """
    requests, outputs = plan(options)
    # Fail early, before loading a model.
    folder = resolve_folder(options.model, "model")
    first_step(_steps(options, read_edit_defaults(folder)), options.strength)
    for name, least in (("batch_size", 1), ("feather", 0)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name} is {getattr(options, name)}, at least {least} expected")
    check_seeds((options.seed, options.seed + len(requests) - 1))
    check_prompt(options.negative_prompt)
    editor = Editor.from_pretrained(
        folder,
        transformer=options.transformer,
        adapters=options.lora,
        dtype=options.dtype,
    )
    edit_files(editor, options, requests, outputs)
    announce(f"written: {options.out}" + ("" if len(outputs) == 1 else f" ({len(outputs)} files)"))


def edit_files(
    editor: Editor,
    options: argparse.Namespace,
    requests: Sequence[Request],
    outputs: Sequence[Path],
) -> None:
    """Edits the requests in batches and writes each result when it is done.

    Args:
      editor: the editor.
      options: the settings, from `parser`.
      requests: the edits.
      outputs: output file of each request.
    """
    sizes = [
        editing_size(one.image, options.height, options.width, editor.multiple) for one in requests
    ]
    steps = _steps(options, editor.defaults)
    steps -= first_step(steps, options.strength)
    with progress_bar("edit", len(requests) * steps, program=f"edit, {options.model}") as bar:
        for part in batches(sizes, options.batch_size):
            pictures = _edited(editor, options, requests, part, bar)
            for index, picture in zip(part, pictures, strict=True):
                if _pastes(options, editor.defaults):
                    source = requests[index]
                    picture = paste_back(source.image, picture, source.mask, options.feather)
                outputs[index].parent.mkdir(parents=True, exist_ok=True)
                picture.save(outputs[index])


def batches(sizes: Sequence[tuple[int, int]], batch_size: int) -> Iterator[tuple[int, ...]]:
    """Indices of the images of each batch: of one size, at most `batch_size`."""
    by_size = sorted(range(len(sizes)), key=lambda index: sizes[index])
    for _, same in itertools.groupby(by_size, key=lambda index: sizes[index]):
        same = list(same)
        for start in range(0, len(same), batch_size):
            yield tuple(same[start : start + batch_size])


def plan(options: argparse.Namespace) -> tuple[list[Request], list[Path]]:
    """The requests, and the output file of each.

    Raises:
      FileNotFoundError, ValueError: as `read_request` and `read_edit_rows`, or rows are bad, or
        options contradict each other.
    """
    if not is_rows(options.image):
        if options.out.suffix.lower() not in Image.registered_extensions():
            raise ValueError(f"--out: {options.out} is not the name of an image, as in edited.png")
        if options.out.is_dir():
            raise ValueError(f"--out: {options.out} is a folder; one image needs a file")
        task = options.task or Task.FILL.value
        request = read_request(options.image, options.mask, options.prompt, task, options.pad)
        return [request], [options.out]
    for name in ("mask", "prompt", "task", "pad"):
        if getattr(options, name):
            raise ValueError(f"--{name}: for a folder, set it in metadata.jsonl")
    if options.out.is_file():
        raise ValueError(f"--out: {options.out} is a file; the results of a folder need a folder")
    rows, errors = read_edit_rows(options.image)
    refuse_rows(options.image, errors)
    requests = [row.open() for row in rows]
    names = [f"{number:05d}-{one.name}.png" for number, one in enumerate(requests, 1)]
    return requests, [options.out / name for name in names]


def _edited(
    editor: Editor,
    options: argparse.Namespace,
    requests: Sequence[Request],
    part: Sequence[int],
    bar: ProgressBar,
) -> list[Image.Image]:
    chosen = [requests[index] for index in part]
    return editor(
        image=[one.image for one in chosen],
        mask=[one.mask for one in chosen],
        prompt=[one.prompt for one in chosen],
        negative_prompt=options.negative_prompt,
        true_cfg_scale=options.true_cfg_scale,
        guidance_scale=options.guidance_scale,
        num_inference_steps=options.steps,
        strength=options.strength,
        height=options.height,
        width=options.width,
        seed=[options.seed + index for index in part],
        on_step=lambda *_: bar.update(len(part)),
    )


def _steps(options: argparse.Namespace, defaults: EditDefaults) -> int:
    return defaults.num_inference_steps if options.steps is None else options.steps


def _pastes(options: argparse.Namespace, defaults: EditDefaults) -> bool:
    return defaults.paste_back if options.paste_back is None else options.paste_back


def main(argv: list[str] | None = None) -> None:
    """The command, on `argv` or the command line."""
    run_command(parser(), run, argv)


def cli() -> None:
    """The command `onereward-edit`."""
    use_compilation_cache()
    set_cpu_threads()
    main()


if __name__ == "__main__":
    cli()
