"""Small files in the formats of public data sets, and their import."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from onereward_jax import preferences

EDITS = ("ovis_u1", "qwen_edit_seed2025", "flux_kontext")


def picture(path, *seed, size=(48, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


def write_edit_reward(folder, sources=24):
    """`train.json` and `images/`, of pictures of several sizes, as the data set has them.

    The first source has a tie in one dimension and overall; the last row has no second score.
    """
    rows = []
    for number in range(sources):
        name = f"{number:032x}"
        picture(folder / "images" / name / "source.png", number, size=(48 + number, 32))
        for place, edit in enumerate(EDITS[:2]):
            picture(folder / "images" / name / f"{edit}.png", number, place, size=(64, 40))
        scores = {
            "model1_dim1_score": 4,
            "model1_dim2_score": 2 + number % 2,
            "model1_overall_score": 6 + number % 2,
            "model2_dim1_score": 4 if number == 0 else 3,
            "model2_dim2_score": 3,
            "model2_overall_score": 6,
            "tie_case": number == 0,
        }
        if number == sources - 1:
            del scores["model2_dim2_score"]
        rows.append(
            {
                "prompt": f"Make sandwich {number} a hot dog.",
                "choice_dist": None,
                "confidence": None,
                "path_src": f"{name}/source.png",
                "path1": f"{name}/{EDITS[0]}.png",
                "path2": f"{name}/{EDITS[1]}.png",
                "model1": EDITS[0],
                "model2": EDITS[1],
            }
            | scores
        )
    (folder / "train.json").write_text(json.dumps(rows))
    return rows


def write_table(folder, rows=24, name="pairs.csv"):
    """A CSV table with its own names of columns and labels, and JPEG pictures."""
    fields = ("left", "right", "caption", "choice", "who")
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        for number in range(rows):
            for place, side in enumerate(("left", "right")):
                picture(folder / f"{side}-{number}.jpg", number, place, 5, size=(40, 40))
            choice = ("leftvote", "rightvote", "same", "0.75")[number % 4]
            caption = f'a "red", round\napple {number}'
            row = (f"left-{number}.jpg", f"right-{number}.jpg", caption, choice, "ann")
            writer.writerow(dict(zip(fields, row)))


TABLE_FLAGS = (
    "--format=table",
    "--columns=image_a=left,image_b=right,prompt=caption,label=choice,annotator=who",
    "--labels=a=leftvote,b=rightvote,tie=same",
    "--task=fill",
    "--dimensions=aesthetics",
)
EDIT_REWARD_FLAGS = (
    "--format=edit_reward",
    "--task=fill",
    "--dimensions=instruction_following=text_alignment,visual_quality=aesthetics",
    "--license=other",
)


def run_import(source, to, *flags):
    preferences.main(["import", f"--from={source}", f"--to={to}", *flags])


def refused(capsys, source, to, *flags):
    """The one message of a refused import, which leaves nothing behind."""
    before = sorted(to.parent.iterdir())
    with pytest.raises(SystemExit) as stopped:
        run_import(source, to, *flags)
    assert stopped.value.code == 2
    assert sorted(to.parent.iterdir()) == before, "nothing is left, not even a draft"
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said[said.index("error: ") + len("error: ") :].rstrip("\n")
