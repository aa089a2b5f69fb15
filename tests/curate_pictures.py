"""A folder of generated pictures to choose from, and a tiny CLIP that tells them apart."""

from __future__ import annotations

import io
import json
import pathlib

import numpy as np
import torch
from PIL import Image, ImageDraw
from test_clip_vision import QUICK, saved_clip

from onereward_jax.curation.clip_preprocess import read_preprocess

COLOURS = ((200, 60, 40), (40, 160, 80), (50, 80, 200), (220, 190, 60))
PER_COLOUR = 6
ROTATED, ORIENTATION = "photos/rotated.jpg", 6
SAME, COPY, BLANK, TEXT, CUT = "copy.jpg", "smaller.jpg", "blank.png", "text.jpg", "cut.jpg"
LEFT_OUT = {
    SAME: "identical",
    COPY: "near-duplicate",
    BLANK: "blank",
    TEXT: "unreadable",
    CUT: "unreadable",
}
CAPTION = "a ball on a wall"


def picture(colour, number: int) -> Image.Image:
    """A ball on a striped wall; size, place and stripes depend on the number."""
    rng = np.random.default_rng([*colour, number])
    width, height = 96 + 8 * int(rng.integers(0, 5)), 80 + 4 * int(rng.integers(0, 5))
    stripes = 24 * np.sin(np.arange(width) * rng.uniform(0.1, 0.6))[None, :, None]
    noise = rng.normal(0, 6, (height, width, 3))
    pixels = np.clip(np.array(colour) + stripes + noise, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    x, y, r = rng.integers(20, width - 20), rng.integers(20, height - 20), rng.integers(8, 18)
    ball = tuple(int(one) for one in rng.integers(0, 256, 3))
    ImageDraw.Draw(image).ellipse((int(x - r), int(y - r), int(x + r), int(y + r)), fill=ball)
    return image


def make_pictures(folder: pathlib.Path) -> list[str]:
    """Writes the folder; returns the names of the good pictures."""
    folder.mkdir(parents=True)
    (folder / "photos").mkdir()
    good = []
    for kind, colour in enumerate(COLOURS):
        for number in range(PER_COLOUR):
            name = f"{kind}-{number}.jpg"
            picture(colour, number).save(folder / name, quality=95)
            good.append(name)
    (folder / "0-0.txt").write_text(f" {CAPTION}\n")
    exif = Image.Exif()
    exif[0x0112] = ORIENTATION
    picture(COLOURS[1], 77).resize((120, 64)).save(folder / ROTATED, quality=95, exif=exif)
    good.append(ROTATED)

    (folder / SAME).write_bytes((folder / "1-1.jpg").read_bytes())
    with Image.open(folder / "2-2.jpg") as whole:
        whole.resize((whole.width - 4, whole.height - 4)).save(folder / COPY, quality=95)
    Image.new("RGB", (90, 90), (120, 130, 140)).save(folder / BLANK)
    (folder / TEXT).write_text("no picture")
    (folder / CUT).write_bytes((folder / "3-3.jpg").read_bytes()[:900])
    (folder / ".hidden.jpg").write_text("no picture")
    return sorted(good)


def make_clip(folder: pathlib.Path, pictures: pathlib.Path) -> pathlib.Path:
    """A random CLIP. Its projection keeps what differs between these pictures."""
    oracle = saved_clip(folder, QUICK, both=True)
    preprocess = read_preprocess(folder)
    pixels = []
    for name in sorted(pictures.glob("?-?.jpg")):
        with Image.open(name) as stored:
            pixels.append(np.moveaxis(preprocess(stored), -1, 0))
    with torch.no_grad():
        pooled = oracle.vision_model(pixel_values=torch.tensor(np.stack(pixels))).pooler_output
        mean = pooled.mean(0) / pooled.mean(0).norm()
        apart = pooled - (pooled @ mean)[:, None] * mean
        directions = torch.linalg.svd(apart, full_matrices=False)[2][: QUICK["projection_dim"]]
        oracle.visual_projection.weight.copy_(directions)
    oracle.save_pretrained(folder)
    return folder


def coco_square(number: int, name: str, size: tuple[int, int], box, *, crowd=False) -> dict:
    """An image and an annotation of COCO: a box (x, y, width, height) as a polygon."""
    x, y, w, h = box
    return {
        "image": {"id": number, "file_name": name, "width": size[0], "height": size[1]},
        "annotation": {
            "image_id": number,
            "category_id": 1,
            "iscrowd": int(crowd),
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        },
    }


def write_coco(path: pathlib.Path, entries: list[dict], label: str = "ball") -> pathlib.Path:
    """A COCO file of entries as of `coco_square`."""
    content = {
        "images": [one["image"] for one in entries],
        "annotations": [one["annotation"] for one in entries],
        "categories": [{"id": 1, "name": label}],
    }
    path.write_text(json.dumps(content))
    return path


def jpeg(image: Image.Image) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
