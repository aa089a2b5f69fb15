"""A contact sheet of scenes, to look at them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from onereward_jax.mini.world.scene import Scene

MASK_TINT = (255, 0, 255)
LINE = 11


def render_grid(scenes: Sequence[Scene], columns: int = 6, zoom: int = 2) -> Image.Image:
    """Each scene as image, image under its tinted mask, and target, with the prompt below."""
    size = scenes[0].image.shape[0]
    cell_width, cell_height = 3 * size * zoom + 8, size * zoom + 3 * LINE
    rows = math.ceil(len(scenes) / columns)
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for index, scene in enumerate(scenes):
        x, y = index % columns * cell_width, index // columns * cell_height
        tinted = (scene.image * 0.4 + np.array(MASK_TINT) * 0.6).astype(np.uint8)
        masked = np.where(scene.mask[..., None] > 0, tinted, scene.image)
        row = Image.fromarray(np.concatenate([scene.image, masked, scene.target], axis=1))
        sheet.paste(row.resize((3 * size * zoom, size * zoom), Image.NEAREST), (x, y))
        text = f"{scene.prompt} [{scene.photo}: {scene.label or scene.kind}]"
        for line, part in enumerate(textwrap.wrap(text, cell_width // 6)[:3]):
            draw.text((x, y + size * zoom + line * LINE), part, fill=(0, 0, 0))
    return sheet
