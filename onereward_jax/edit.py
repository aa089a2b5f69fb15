"""Edit images with a FLUX Fill editor: fill, extend, remove.

    python -m onereward_jax.edit --model=mini/models/editor --image=cup.png --mask=cup_mask.png \\
      --prompt="a red apple" --out=edited.png

White in the mask: edit here. --crop edits a window around the mask at the model's own resolution
and stitches it into the photograph: for photographs larger than the model's pictures.

--image may be a folder with metadata.jsonl, one row per image, e.g.
{"image": "a.jpg", "mask": "a_mask.png", "prompt": "a red apple", "task": "fill"}; --out is then a
folder too, and the same command again makes only what is missing there.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, get_args

from PIL import ImageOps

from onereward_jax.chain import fingerprints
from onereward_jax.common.user_errors import CommandParser, full_disk_message, run_command
from onereward_jax.common.user_path import user_path
from onereward_jax.convert import EDITING, resolve_adapter, resolve_folder, resolve_weights
from onereward_jax.inference import Editor
from onereward_jax.inference.batch_padding import dtype_or_default
from onereward_jax.inference.edit_defaults import EditDefaults, read_edit_defaults
from onereward_jax.inference.edit_requests import is_rows, read_edit_rows, read_request
from onereward_jax.inference.folder_edits import edit_folder, rows_to_edit
from onereward_jax.inference.photograph_edit import (
    COMPONENTS,
    Crop,
    EditPlan,
    PhotographEdit,
    edit_batch,
    prepare,
)
from onereward_jax.inference.seeds import check_seeds
from onereward_jax.parallel.compilation_cache import use_compilation_cache
from onereward_jax.parallel.cpu_threads import set_cpu_threads
from onereward_jax.parallel.progress import announce, progress_bar
from onereward_jax.pictures import check_output, write_picture
from onereward_jax.policy.noise_schedule import first_step
from onereward_jax.policy.sampler import Solver
from onereward_jax.policy.text_encoders import check_prompt
from onereward_jax.tasks import COMMAND_TASKS, Task

DTYPES = ("float32", "bfloat16")
STATED = f"or what {EDITING} in the editor's folder states"


def parser() -> CommandParser:
    """The options of this command."""
    options = CommandParser(prog="python -m onereward_jax.edit", description=__doc__)
    editor_options(options, required=True)
    add = options.add_argument_group("what to edit").add_argument
    add("--image", required=True, help="image, or folder with metadata.jsonl, or a file of rows")
    add("--mask", type=user_path, help="image whose white pixels are edited")
    add("--mask_indices", type=indices, default=(), metavar="N[,N]",
        help="palette indices or labels that mark the area in masks, instead of white")  # fmt: skip
    add("--paths", choices=("inside", "anywhere"), default="inside",
        help="of pictures in rows: inside their folder only (default), or anywhere")  # fmt: skip
    add("--invert_mask", action="store_true", help="edit where the masks are black")
    add("--prompt", default="", help="prompt; optional for remove and extend")
    add("--task", help=f"one of {', '.join(COMMAND_TASKS)} (default fill)")
    add("--pad", help="for extend: pixels to add, left,top,right,bottom, instead of a mask")
    add("--out", required=True, type=user_path, help="image to write, or folder")

    sampling_options(options)
    add = options.add_argument_group("batches").add_argument
    add("--seed", type=int, default=0,
        help="noise seed of up to 64 bits; + 1 for each further edit of an image in a folder, and "
        "for each further area of --components=each (default 0)")  # fmt: skip
    add("--batch_size", type=int, default=1, help="images of a folder per batch (default 1)")

    window_options(options)
    add = options.add_argument_group("size of the result").add_argument
    add("--height", type=int, help="height of the edit (default: that of the source)")
    add("--width", type=int, help="width of the edit (default: that of the source)")
    add("--crop", action="store_true",
        help="edit a window around the mask at the model's resolution; keep the rest")  # fmt: skip
    return options


def editor_options(options: CommandParser, **model: Any) -> None:
    """The options that `load` reads; `model`: more arguments of --model."""
    add = options.add_argument_group("the editor").add_argument
    add("--model", help="folder of the editor (diffusers layout)", **model)
    add("--transformer", help="transformer, a folder or file, instead of the editor's own")
    add("--lora", action="append", default=[], type=weighted, metavar="PATH[:WEIGHT]",
        help="LoRA adapter, file or folder; may be repeated")  # fmt: skip
    add("--dtype", choices=DTYPES, help="default: float32 on CPU, bfloat16 on TPU and GPU")


def sampling_options(options: CommandParser) -> None:
    """The options of sampling that `edit_plan` reads."""
    add = options.add_argument_group("sampling").add_argument
    add("--negative_prompt", default="nsfw", help="negative prompt (default %(default)s)")
    add("--true_cfg_scale", type=float,
        help=f"true classifier-free guidance, 1 for none (default 4; {STATED})")  # fmt: skip
    add("--guidance_scale", type=float,
        help=f"embedded (distilled) guidance of FLUX (default 1; {STATED})")  # fmt: skip
    add("--steps", type=int, help=f"sampling steps (default 50; {STATED})")
    add("--solver", choices=get_args(Solver),
        help=f"ab2: of second order, for fewer steps (default euler; {STATED})")  # fmt: skip
    add("--strength", type=float, default=1.0,
        help="below 1: start from the noised source image (default %(default)s)")  # fmt: skip


def window_options(options: CommandParser) -> None:
    """The options of windows and seams that `edit_plan` reads."""
    add = options.add_argument_group("windows and seams").add_argument
    add("--paste_back", action=argparse.BooleanOptionalAction,
        help=f"keep the source outside the mask, at its size (default off; {STATED})")  # fmt: skip
    add("--feather", type=int, default=8,
        help="blending width of --paste_back and --crop, pixels (default %(default)s)")  # fmt: skip
    add("--context", type=float,
        help="side of the window of --crop over that of the masked area (default 2)")  # fmt: skip
    add("--components", choices=COMPONENTS,
        help="separate areas of the mask: one window for all (together, the default), or each in "
        "its own, from top to bottom, so that later ones see earlier results")  # fmt: skip
    add("--resolution", type=int, metavar="PIXELS",
        help=f"side of a square window in the model (default 1024; {STATED})")  # fmt: skip


def indices(text: str) -> tuple[int, ...]:
    """Parses "1,2".

    Raises:
      argparse.ArgumentTypeError: it is no list of numbers.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, as in 1,2")
    return tuple(map(int, parts))


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
      FileNotFoundError, ValueError: an input is missing or damaged, options contradict each other
        or are out of range, or some rows of a folder could not be edited.
    """
    try:
        edit_rows(options) if is_rows(options.image) else edit_one(options)
    except OSError as error:
        if message := full_disk_message(error):
            raise ValueError(f"--out: {options.out}: {message}") from error
        raise


def edit_one(options: argparse.Namespace) -> None:
    """Edits one image."""
    out = options.out
    if out.is_dir():
        raise ValueError(f"--out: {out} is a folder; one image needs a file")
    try:
        check_output(out)
    except ValueError as error:
        raise ValueError(f"--out: {error}") from error
    for source in (user_path(options.image), options.mask):
        if source is not None and out.exists() and source.exists() and out.samefile(source):
            raise ValueError(f"--out: {out} is an input, which would be lost; choose another name")
    request = read_request(
        user_path(options.image),
        options.mask,
        options.prompt,
        options.task or Task.FILL.value,
        options.pad,
        mask_indices=options.mask_indices,
    )
    mask = request.mask if options.pad or not options.invert_mask else ImageOps.invert(request.mask)
    edit = PhotographEdit(request.photograph, mask, request.prompt, options.seed, options.image)
    folder, plan = model_and_plan(options)
    if plan.feather is not None:  # the result has the photograph's size
        check_output(out, request.photograph.pixels.size)
    editor = load(options, folder)
    ready = prepare(edit, plan, editor)
    steps = sampled_steps(plan)
    with progress_bar("edit", ready.rounds * steps, program=f"edit, {options.model}") as bar:
        (picture,) = edit_batch(editor, [ready], plan, bar.update)
    write_picture(out, picture, edit.photograph.profile)
    announce(f"written: {out}")


def edit_rows(options: argparse.Namespace) -> None:
    """Edits the rows of a folder, but those whose results are there."""
    for name in ("mask", "prompt", "task", "pad"):
        if getattr(options, name):
            raise ValueError(f"--{name}: for a folder, set it in metadata.jsonl")
    if options.out.is_file():
        raise ValueError(f"--out: {options.out} is a file; the results of a folder need a folder")
    folder, plan = model_and_plan(options)
    rows, errors = read_edit_rows(
        options.image, anywhere=options.paths == "anywhere", mask_indices=options.mask_indices
    )
    todo = rows_to_edit(
        rows, made_with(options, folder, plan), options.seed, invert=options.invert_mask
    )
    edit_folder(
        todo,
        options.out,
        plan,
        lambda: load(options, folder),
        source=options.image,
        errors=errors,
        batch_size=options.batch_size,
        steps=sampled_steps(plan),
        program=f"edit, {options.model}",
    )


def model_and_plan(options: argparse.Namespace) -> tuple[Path, EditPlan]:
    """The editor's folder, and how to edit; all that can be checked before a model is loaded.

    Raises:
      FileNotFoundError, ValueError: as `run`.
    """
    folder = resolve_folder(options.model, "model")
    if options.batch_size < 1:
        raise ValueError(f"--batch_size is {options.batch_size}, at least 1 expected")
    return folder, edit_plan(options, read_edit_defaults(folder))


def edit_plan(options: argparse.Namespace, stated: EditDefaults) -> EditPlan:
    """How to edit.

    Args:
      options: of `sampling_options` and `window_options`, and seed, crop, height and width.
      stated: what is taken where nothing is said.

    Raises:
      ValueError: options contradict each other or are out of range.
    """
    if options.feather < 0:
        raise ValueError(f"--feather is {options.feather}, at least 0 expected")
    check_prompt(options.negative_prompt)
    check_seeds((options.seed,))
    sampling = {
        "negative_prompt": options.negative_prompt,
        "true_cfg_scale": _finite(options, "true_cfg_scale", stated),
        "guidance_scale": _finite(options, "guidance_scale", stated),
        "num_inference_steps": _or(options.steps, stated.num_inference_steps),
        "solver": _or(options.solver, stated.solver),
        "strength": options.strength,
        "height": options.height,
        "width": options.width,
    }
    first_step(sampling["num_inference_steps"], options.strength)
    if not options.crop:
        for name in ("context", "components", "resolution"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} is for --crop, which is not given")
        pastes = _or(options.paste_back, stated.paste_back)
        return EditPlan(None, options.feather if pastes else None, sampling)
    for name in ("height", "width"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name}: with --crop the result has the size of the source")
    if options.paste_back is False:
        raise ValueError("--no-paste_back: --crop pastes its window back")
    crop = Crop(
        _or(options.context, 2.0),
        options.components or "together",
        _or(options.resolution, stated.resolution),
    )
    return EditPlan(crop, options.feather, sampling)


def made_with(options: argparse.Namespace, folder: Path, plan: EditPlan) -> dict[str, Any]:
    """What the results of all rows depend on, for the record beside them."""
    loras = [[_fingerprint(resolve_adapter(path, "lora")), weight] for path, weight in options.lora]
    transformer = options.transformer and resolve_weights(options.transformer, "transformer")
    crop = plan.crop
    return {
        "model": _fingerprint(folder),
        "transformer": transformer and _fingerprint(transformer),
        "lora": loras,
        "dtype": str(dtype_or_default(options.dtype)),
        **plan.sampling,
        "feather": plan.feather,
        "crop": crop and [crop.context, crop.components, crop.resolution],
        "invert_mask": options.invert_mask,
        "mask_indices": list(options.mask_indices),
    }


def load(options: argparse.Namespace, folder: Path) -> Editor:
    """The editor."""
    return Editor.from_pretrained(
        folder,
        transformer=options.transformer,
        adapters=options.lora,
        dtype=options.dtype,
    )


def sampled_steps(plan: EditPlan) -> int:
    """Calls of the model per edit."""
    steps = plan.sampling["num_inference_steps"]
    return steps - first_step(steps, plan.sampling["strength"])


def _finite(options: argparse.Namespace, name: str, stated: EditDefaults) -> float:
    value = _or(getattr(options, name), getattr(stated, name))
    if not math.isfinite(value):
        raise ValueError(f"--{name} is {value}, a finite number expected")
    return value


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _fingerprint(path: Path) -> str:
    return fingerprints.of_model(path) if path.is_dir() else fingerprints.of_file(path)


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
