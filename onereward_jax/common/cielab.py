"""CIE L*a*b*: a perceptually uniform colour space."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def rgb_to_lab(rgb: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """CIE L*a*b* (D65) of sRGB values in [0, 1]."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    relative = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
