"""Small folders in the layouts of benchmarks, written from the descriptions of the formats."""

from __future__ import annotations

import csv
import json
import pathlib

import numpy as np
from PIL import Image

SIDE = 48


def picture(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Smooth noise of some colours."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def box_mask(size: tuple[int, int] = (SIDE, SIDE), box=(10, 14, 30, 26)) -> np.ndarray:
    """True in a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    mask = np.zeros(size[::-1], bool)
    mask[top:bottom, left:right] = True
    return mask


def run_lengths(mask: np.ndarray) -> list[int]:
    """First pixel, from 1, and length of each run of True, row by row."""
    flat = np.concatenate([[False], mask.reshape(-1), [False]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(n) for first, last in ends.reshape(-1, 2) for n in (first + 1, last - first)]


def write_brushbench(folder: pathlib.Path, count: int = 3, size=(SIDE, SIDE)) -> pathlib.Path:
    """mapping_file.json, one entry per line, and images/."""
    (folder / "images").mkdir(parents=True)
    entries = {}
    for number in range(count):
        name = f"{number:06}"
        picture(number, size).save(folder / "images" / f"{name}.jpg", quality=95)
        inside = box_mask(size, (10 + number, 14, 30 + number, 26))
        entries[name] = {
            "image": f"images/{name}.jpg",
            "caption": f"{number} red apples",
            "inpainting_mask": run_lengths(inside),
            "outpainting_mask": run_lengths(~inside),
        }
    write_mapping(folder, entries)
    return folder


def write_mapping(folder: pathlib.Path, entries: dict) -> None:
    lines = (f"{json.dumps(name)}: {json.dumps(fields)}" for name, fields in entries.items())
    (folder / "mapping_file.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def write_editbench(folder: pathlib.Path, count: int = 2) -> pathlib.Path:
    """annotations_<kind>.csv, references_<kind>/ and masks_<kind>/."""
    for kind in ("generated", "natural"):
        for name in ("references", "masks"):
            (folder / f"{name}_{kind}").mkdir(parents=True)
        with (folder / f"annotations_{kind}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            prompts = ("prompt_full", "prompt_mask-simple", "prompt_mask-rich")
            writer.writerow(["", "aos", "category", *prompts])
            for number in range(count):
                name = f"{kind}_{number}"
                picture(number).save(folder / f"references_{kind}" / f"{name}.png")
                mask = Image.fromarray(box_mask()).convert("RGB")
                mask.save(folder / f"masks_{kind}" / f"{name}.png")
                told = [f"{what}, {number} {kind} cats" for what in ("full", "simple", "rich")]
                writer.writerow([number, name, "animal", *told])
    return folder


def write_pictures(folder: pathlib.Path, count: int = 3) -> pathlib.Path:
    """source/, mask/, and for some a target and a prompt."""
    for name in ("source", "mask", "target", "prompt"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        name = f"p{number}"
        picture(number).save(folder / "source" / f"{name}.jpg")
        Image.fromarray(box_mask()).convert("L").save(folder / "mask" / f"{name}.png")
        if number:
            picture(number + 50).save(folder / "target" / f"{name}.png")
            (folder / "prompt" / f"{name}.txt").write_text(f'the word "SALE {number}"\n')
    return folder
