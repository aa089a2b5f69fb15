"""Words for a colour: "dark blue", "orange", "bright pink". Prompts of extend scenes use them.

A colour gets the name of the nearest of a few named colours in CIE L*a*b*. The same table writes
prompts and checks whether an image has the colour that the prompt names.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

from onereward_jax.common.cielab import rgb_to_lab

Lab = tuple[float, float, float]

# Hue angle in degrees, chroma and lightness L* of each colour.
_HUES = {
    "red": (30, 50, 48),
    "orange": (62, 58, 66),
    "brown": (62, 27, 42),
    "yellow": (92, 58, 80),
    "green": (130, 38, 52),
    "teal": (195, 28, 52),
    "blue": (284, 38, 45),
    "purple": (320, 38, 46),
    "pink": (356, 36, 68),
    "grey": (0, 0, 52),
}
_LIGHTNESS = {"dark": -24, "": 0, "bright": 20}


def _named_colours() -> dict[str, Lab]:
    colours = {"black": (5.0, 0.0, 0.0), "white": (97.0, 0.0, 0.0)}
    for colour, (hue, chroma, lightness) in _HUES.items():
        a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
        for word, shift in _LIGHTNESS.items():
            # A dark colour is also a duller one.
            scale = 0.6 if word == "dark" else 1.0
            named = (float(lightness + shift), float(a * scale), float(b * scale))
            colours[f"{word} {colour}".strip()] = named
    return colours


NAMED_COLOURS: Mapping[str, Lab] = _named_colours()
"""L*a*b* of every colour a prompt can name."""


def describe_colour(rgb: Shaped[np.ndarray, "3"]) -> str:
    """The words for an sRGB colour in [0, 255]: the nearest of `NAMED_COLOURS`."""
    lab = rgb_to_lab(np.asarray(rgb, np.float64) / 255)
    return _NAMES[int(((_VALUES - lab) ** 2).sum(-1).argmin())]


_NAMES = tuple(NAMED_COLOURS)
_VALUES = np.array(list(NAMED_COLOURS.values()))
