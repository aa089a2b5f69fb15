"""The metrics of a benchmark by what measures them: pixels, OCR, LPIPS, CLIP, judges."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from onereward_jax.chain import fingerprints
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.pixels import from_uint8
from onereward_jax.convert import resolve_folder, resolve_weights
from onereward_jax.convert.lpips_file import read_lpips
from onereward_jax.data.benchmark_rows import BenchmarkRow, RowPixels
from onereward_jax.evaluation.image_metrics import masked_psnr
from onereward_jax.evaluation.mask_border import seam
from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.evaluation.ssim import ssim_map
from onereward_jax.evaluation.word_reading import OCR, can_read, words_read
from onereward_jax.models.lpips import LEAST_SIDE, lpips
from onereward_jax.stages.settings import compute_dtype
from onereward_jax.tasks import Task

LPIPS, CLIP = "config.benchmark.lpips", "config.benchmark.clip"

NO_TARGET = "the row has no target"
NO_PROMPT = "the row has no prompt that says what to see"
NO_WORDS = "the row's prompt has no words in quotes"
NO_REMOVAL = "the row is no removal"
ALL_MASKED = "the mask covers the whole picture"
NO_BORDER = "the mask has no border with two pixels on each side"
TOO_SMALL = f"the picture has a side below {LEAST_SIDE} pixels"


class Sample(NamedTuple):
    """A picture to measure.

    Attributes:
      row, pixels: the row and its decoded pictures.
      result: the editor's picture, in the size of the row.
      first: the first editor's; None for the first editor itself, or if it has none.
    """

    row: BenchmarkRow
    pixels: RowPixels
    result: UInt8[np.ndarray, "h w 3"]
    first: UInt8[np.ndarray, "h w 3"] | None


Values = dict[str, float | str]
"""Metric -> value, or why there is none."""

Measure = Callable[[Sequence[Sample]], list[Values]]
"""Samples of one size, always equally many -> the values of each."""


@dataclasses.dataclass(frozen=True)
class MetricKind:
    """Metrics that are measured together.

    Attributes:
      name: unique.
      metrics: their names.
      version: what the values depend on beside the pictures; "" if `absent`.
      load: loads the weights.
      absent: why none of them can be measured in this run; "" if they can.
      lacking: row -> metric -> why it cannot be measured there.
      compares: whether it compares with the first editor.
      compiles: whether it compiles a program.
    """

    name: str
    metrics: tuple[str, ...]
    version: str
    load: Callable[[], Measure]
    absent: str = ""
    lacking: Callable[[BenchmarkRow], dict[str, str]] = lambda row: {}
    compares: bool = False
    compiles: bool = True


def pixel_kind() -> MetricKind:
    """PSNR, SSIM and the seam."""

    def measure(samples: Sequence[Sample]) -> list[Values]:
        return [_pixels(one) for one in samples]

    def lacking(row: BenchmarkRow) -> dict[str, str]:
        return {} if row.target else {"psnr": NO_TARGET, "ssim": NO_TARGET}

    return MetricKind(
        "pixels",
        ("psnr_kept", "psnr", "ssim", "seam"),
        "1",
        lambda: measure,
        lacking=lacking,
        compiles=False,
    )


def _pixels(one: Sample) -> Values:
    mask, result = one.pixels.mask, Picture.read(one.result)
    found: Values = {"psnr_kept": ALL_MASKED}
    if not mask.all():
        found["psnr_kept"] = masked_psnr(result, Picture.read(one.pixels.source), ~mask)
    step = seam(result, mask)
    found["seam"] = NO_BORDER if step is None else step
    if one.pixels.truth is not None:
        truth = Picture.read(one.pixels.truth)
        found["psnr"] = masked_psnr(result, truth, mask)
        found["ssim"] = float(ssim_map(result.rgb, truth.rgb)[mask].mean())
    return found


def word_kind() -> MetricKind:
    """OCR."""

    def measure(samples: Sequence[Sample]) -> list[Values]:
        return [
            {"words": words_read(one.result, one.pixels.mask, one.row.words)} for one in samples
        ]

    absent = "" if can_read() else f"{OCR} is not installed: pip install -e '.[mini]'"
    return MetricKind(
        "words",
        ("words",),
        "1",
        lambda: measure,
        absent,
        lambda row: {} if row.words else {"words": NO_WORDS},
        compiles=False,
    )


def lpips_kind(context: StageContext) -> MetricKind:
    """LPIPS to the source outside the mask, and to the target.

    Raises:
      FileNotFoundError: there are no such weights.
    """
    name, metrics = context.config.benchmark.lpips, ("lpips_kept", "lpips")
    if not name:
        return MetricKind("lpips", metrics, "", nothing, f"{LPIPS} is empty")
    source = resolve_weights(name, LPIPS)

    def lacking(row: BenchmarkRow) -> dict[str, str]:
        if min(row.size) < LEAST_SIDE:
            return dict.fromkeys(metrics, TOO_SMALL)
        return {} if row.target else {"lpips": NO_TARGET}

    def load() -> Measure:
        params = read_lpips(source)
        distance = jax.jit(functools.partial(lpips, params))
        return functools.partial(_lpips, lambda a, b: np.asarray(distance(a, b)))

    return MetricKind("lpips", metrics, f"1 {fingerprints.of_model(source)}", load, "", lacking)


def _lpips(
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray], samples: Sequence[Sample]
) -> list[Values]:
    results = from_uint8([one.result for one in samples])
    kept = np.stack([~one.pixels.mask for one in samples])[..., None]
    sources = from_uint8([one.pixels.source for one in samples])
    # Black in both, as in BrushNet's evaluation.
    outside = distance(*(np.where(kept, one, np.float32(-1)) for one in (results, sources)))
    known = [one.result if one.pixels.truth is None else one.pixels.truth for one in samples]
    whole = distance(results, from_uint8(known))
    found = []
    for one, apart, total in zip(samples, outside, whole):
        values: Values = {"lpips_kept": ALL_MASKED if one.pixels.mask.all() else float(apart)}
        if one.pixels.truth is not None:
            values["lpips"] = float(total)
        found.append(values)
    return found


def clip_kind(context: StageContext) -> MetricKind:
    """Similarities of CLIP: prompt and picture; before and after a removal.

    Raises:
      FileNotFoundError, ValueError: the folder is missing, or not CLIP's.
    """
    from onereward_jax.curation.clip_embedder import ClipEmbedder, read_clip_folder
    from onereward_jax.curation.clip_text_embedder import ClipTextEmbedder, read_text_config

    name = context.config.benchmark.clip
    of_text, of_removal = ("clip_text", "clip_text_mask"), ("clip_removed", "clip_truth")
    metrics = (*of_text, *of_removal)
    if not name:
        return MetricKind("clip", metrics, "", nothing, f"{CLIP} is empty")
    folder, no_text = resolve_folder(name, CLIP), ""
    read_clip_folder(folder)
    try:
        read_text_config(folder)
    except ValueError as error:
        no_text = str(error)

    def lacking(row: BenchmarkRow) -> dict[str, str]:
        found = {}
        if no_text or not row.described:
            found |= dict.fromkeys(of_text, no_text or NO_PROMPT)
        if row.task is not Task.REMOVAL:
            found |= dict.fromkeys(of_removal, NO_REMOVAL)
        elif row.target is None:
            found["clip_truth"] = NO_TARGET
        return found

    def load() -> Measure:
        dtype = compute_dtype(context.config)
        batch = context.config.benchmark.batch_size
        pictures = ClipEmbedder(folder, batch_size=batch, dtype=dtype)
        text = None if no_text else ClipTextEmbedder(folder, dtype=dtype)
        return functools.partial(_clip, pictures, text)

    version = f"1 {fingerprints.of_model(folder)} {context.config.models.dtype}"
    return MetricKind("clip", metrics, version, load, "", lacking)


def _clip(embedder: Callable, text: Callable | None, samples: Sequence[Sample]) -> list[Values]:
    shown: list[UInt8[np.ndarray, "_ _ 3"]] = []
    for one in samples:
        box = square_around(one.pixels.mask)
        truth = one.pixels.source if one.pixels.truth is None else one.pixels.truth
        shown += [one.result, *(whole[box] for whole in (one.result, one.pixels.source, truth))]
    found = _embedded(embedder, shown).reshape(len(samples), 4, -1)
    prompts = None if text is None else text([one.row.prompt for one in samples])
    values: list[Values] = []
    for number, (one, (whole, inside, before, truth)) in enumerate(zip(samples, found)):
        own: Values = {}
        if prompts is not None and one.row.described:
            own["clip_text"] = 100 * max(0.0, float(whole @ prompts[number]))
            own["clip_text_mask"] = 100 * max(0.0, float(inside @ prompts[number]))
        if one.row.task is Task.REMOVAL:
            own["clip_removed"] = float(inside @ before)
            if one.pixels.truth is not None:
                own["clip_truth"] = float(inside @ truth)
        values.append(own)
    return values


def _embedded(
    embedder: Callable, pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]
) -> Float32[np.ndarray, "n e"]:
    pixels = np.stack([embedder.preprocess(Image.fromarray(one)) for one in pictures])
    size = embedder.batch_size
    parts = [embedder(pixels[start : start + size]) for start in range(0, len(pixels), size)]
    return np.concatenate(parts)


def square_around(mask: Bool[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """The smallest square around a mask, moved into the picture; cut where it is too large."""
    ends = [(int(one[0]), int(one[-1]) + 1) for one in (np.nonzero(mask.any(a))[0] for a in (1, 0))]
    side = max(end - start for start, end in ends)
    slices = []
    for (start, end), length in zip(ends, mask.shape):
        first = (start + end - side) // 2
        first = max(0, min(first, length - side))
        slices.append(slice(first, min(first + side, length)))
    return slices[0], slices[1]


def nothing() -> Measure:
    """The `load` of metrics that cannot be measured; never called."""
    raise AssertionError("an absent kind of metric is not loaded")
