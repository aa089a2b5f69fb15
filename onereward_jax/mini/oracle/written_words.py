"""Checks whether the prompt's word is written: by OCR, and by stroke correlation if blurry."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.mini.oracle.closeness import weighted
from onereward_jax.mini.oracle.reading import Reader, likeness
from onereward_jax.mini.oracle.triplet import SceneTruth
from onereward_jax.mini.oracle.windows import sample_windows
from onereward_jax.mini.world.words import FACES, WORDS, word_picture

WEIGHTS = {"reading": 0.3, "recognition": 0.4, "strokes": 0.3}

ROWS, COLUMNS = 16, 48
STROKE_SIGMA = 3.0
"""Grid cells; removes everything wider than a letter, so that a dark bar is not a word."""

TEMPERATURE = 0.08
"""Temperature of the softmax over words; correlations are in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class WordJudge:
    """Text alignment of a fill with a word. `reader` None leaves the OCR part out (faster)."""

    reader: Reader | None

    def parts(self, result: Picture, triplet: SceneTruth) -> dict[str, float]:
        """Parts in [0, 1].

        reading: share of the letters that OCR reads. recognition: probability of the right word
        among all words by their strokes in any face. strokes: correlation with the right one.
        Ink may be darker or lighter than its plate: the prompt does not specify a colour.

        Raises:
          ValueError: the label is not one of the mini world's words.
        """
        if triplet.label not in WORDS:
            raise ValueError(f"label {triplet.label!r} is not one of the {len(WORDS)} words")
        templates = _templates()
        box = triplet.drawn_box
        windows = _strokes(sample_windows(result.lab, box, ROWS, COLUMNS)[..., 0])

        label = WORDS.index(triplet.label)
        # einsum instead of a matrix product: too small for BLAS threads.
        fit = np.abs(np.einsum("mp,fp->mf", windows, templates[label])).max(1)
        window = windows[fit.argmax()]
        likely = np.abs(np.einsum("p,wfp->wf", window, templates)).max(1)
        odds = np.exp((likely - likely.max()) / TEMPERATURE)
        parts = {
            "recognition": float(odds[label] / odds.sum()),
            "strokes": min(1.0, float(likely[label])),
        }
        if self.reader is not None:
            pixels = np.round(result.rgb * 255).astype(np.uint8)
            parts["reading"] = likeness(self.reader(pixels, box), triplet.label)
        return parts

    def score(self, result: Picture, triplet: SceneTruth) -> float:
        """Text alignment in [0, 1], about 1 for the truth when OCR can read it."""
        parts = self.parts(result, triplet)
        return weighted(parts, {name: WEIGHTS[name] for name in parts})


@functools.cache
def _templates() -> Float32[np.ndarray, "words faces pixels"]:
    """Unit-length strokes of every word in every face, each fitted tightly to the grid."""
    faces = tuple(dict.fromkeys(FACES))
    drawn = [word_picture(word, face, COLUMNS, ROWS) for word in WORDS for face in faces]
    ink = np.stack(drawn).astype(np.float32) * (100 / 255)  # as black on white in L*
    return _strokes(ink).reshape(len(WORDS), len(faces), -1)


def _strokes(
    lightness: Float32[np.ndarray, "m rows columns"],
) -> Float32[np.ndarray, "m pixels"]:
    """High-passed windows scaled to unit length, so that their product is a correlation."""
    broad = ndimage.gaussian_filter(lightness, (0, STROKE_SIGMA, STROKE_SIGMA), truncate=2.0)
    strokes = (lightness - broad).reshape(len(lightness), -1)
    # Add one L* of spread, so that a flat window correlates with nothing.
    return strokes / np.sqrt((strokes**2).sum(1, keepdims=True) + strokes.shape[1])
