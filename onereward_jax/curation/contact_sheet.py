"""The contact sheet: what was chosen, with the masks drawn in, and what was left out.

contact_sheet.html   opens in a browser, needs no server
sheet/*.jpg          the thumbnails of one section each, side by side
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image, ImageFilter

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.pictures import read_mask, read_picture

PAGE, FOLDER = "contact_sheet.html", "sheet"
TEMPLATE = Path(__file__).with_name("contact_sheet.html")

HEIGHT, WIDEST = 240, 560
"""Of a thumbnail, in pixels of the file; the page shows them at 2/3 of it."""

TINT, STRENGTH = (232, 30, 120), 0.5
"""Colour of a mask, and its opacity."""

QUALITY = 85
_PAPER = (128, 128, 128)


@dataclasses.dataclass(frozen=True)
class Tile:
    """A thumbnail.

    Attributes:
      image: the picture.
      mask: its mask; None for none.
      title: shown when the mouse rests on it, and read aloud.
      chip: a short word above the caption, e.g. the task; "" for none.
      caption: e.g. the prompt.
      link: where a click leads, relative to the page; "" for nowhere.
    """

    image: Path
    mask: Path | None
    title: str
    chip: str = ""
    caption: str = ""
    link: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """Thumbnails below a heading.

    Attributes:
      name: unique; of its file, without suffix.
      heading: text above.
      note: beside the heading.
      tiles: thumbnails.
      together: how many of them are framed together, e.g. pairs.
    """

    name: str
    heading: str
    note: str
    tiles: Sequence[Tile]
    together: int = 1


def write_contact_sheet(
    folder: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    chosen: Sequence[Section],
    left_out: Sequence[Section],
    unreadable: Sequence[tuple[str, str]],
    threads: int,
    progress: Callable[[int], object] = lambda count: None,
) -> None:
    """Writes the page and its pictures, replacing an earlier sheet.

    Args:
      folder: where to write them.
      title: heading of the page.
      facts: name -> value of the table at the top.
      chosen: one section for each shown cluster.
      left_out: sections of pictures that were left out.
      unreadable: (name, reason) of pictures that cannot be shown.
      threads: sections that are drawn at the same time.
      progress: called with 1 for each finished section.
    """
    if (folder / FOLDER).exists():
        shutil.rmtree(folder / FOLDER)
    sections = [*chosen, *left_out]

    def draw(section: Section) -> dict:
        places = _draw_strip(folder / FOLDER / f"{section.name}.jpg", section.tiles)
        progress(1)
        return {"of": section, "tiles": list(zip(section.tiles, places))}

    with ThreadPoolExecutor(threads) as pool:
        drawn = list(pool.map(draw, sections))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        facts=facts,
        chosen=drawn[: len(chosen)],
        left_out=drawn[len(chosen) :],
        unreadable=unreadable,
        folder=FOLDER,
        height=HEIGHT,
        shown=2 / 3,
    )
    with atomic_file(folder / PAGE) as draft:
        draft.write_text(page, encoding="utf-8")


def thumbnail(image: Path, mask: Path | None) -> Image.Image:
    """A picture, upright, at most `WIDEST` x `HEIGHT` pixels, with its mask tinted and outlined.

    A file that cannot be read becomes a grey rectangle.
    """
    try:
        picture = read_picture(image, at_least=(WIDEST * 2, HEIGHT * 2))
    except (OSError, ValueError):
        return Image.new("RGB", (HEIGHT, HEIGHT), _PAPER)
    scale = min(HEIGHT / picture.height, WIDEST / picture.width)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    if mask is None:
        return picture
    area = read_mask(mask).resize(size, Image.Resampling.BOX)
    area = area.point(lambda grey: 255 if grey >= 128 else 0)
    inside = area.filter(ImageFilter.MinFilter(5))
    edge = Image.fromarray(np.asarray(area) - np.asarray(inside))
    tint = Image.new("RGB", size, TINT)
    tinted = Image.composite(Image.blend(picture, tint, STRENGTH), picture, area)
    return Image.composite(tint, tinted, edge)


def _draw_strip(path: Path, tiles: Sequence[Tile]) -> list[dict[str, int]]:
    """Writes the thumbnails side by side; returns the place and the size of each."""
    pictures = [thumbnail(tile.image, tile.mask) for tile in tiles]
    places, left = [], 0
    for picture in pictures:
        places.append({"x": left, "width": picture.width, "height": picture.height})
        left += picture.width
    strip = Image.new("RGB", (max(1, left), HEIGHT), _PAPER)
    for picture, place in zip(pictures, places):
        strip.paste(picture, (place["x"], 0))
    with atomic_file(path) as draft:
        strip.save(draft, "JPEG", quality=QUALITY)
    return [place | {"total": strip.width} for place in places]
