"""The metrics of a benchmark against restatements; tables, intervals and what is not measured."""

import csv
import json

import jax
import numpy as np
import pytest
import torch
import transformers
from benchmark_pictures import box_mask, picture
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from test_clip_vision import QUICK, TEXT, saved_clip

from onereward_jax.curation.clip_text_embedder import ClipTextEmbedder
from onereward_jax.data.benchmark_rows import BenchmarkRow, RowPixels
from onereward_jax.data.row_sources import Place
from onereward_jax.evaluation.benchmark_metrics import METRICS
from onereward_jax.evaluation.benchmark_table import (
    ALL,
    MeasuredRow,
    as_csv,
    as_markdown,
    interval,
    not_measured,
    table_of,
)
from onereward_jax.evaluation.mask_border import seam
from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.evaluation.word_reading import words_read
from onereward_jax.mini.mini_tokenizers import clip_tokenizer
from onereward_jax.stages.benchmark.host_shares import host_shares
from onereward_jax.stages.benchmark.metric_kinds import Sample, pixel_kind, square_around
from onereward_jax.tasks import Task

SIZE = (60, 44)


def row(**fields):
    given = dict(
        place=Place(1, "line 1"), name="a", image=lambda: b"", mask=lambda: b"", target=None,
        prompt="a cat", task=Task.FILL, stored=SIZE, size=SIZE,
    )  # fmt: skip
    return BenchmarkRow(**given | fields)


def test_pixels_equal_skimage():
    source, result, truth = (np.asarray(picture(seed, SIZE)) for seed in range(3))
    mask = box_mask(SIZE)
    kind = pixel_kind()
    sample = Sample(row(target=lambda: b""), RowPixels(source, mask, truth), result, None)
    (found,) = kind.load()([sample])
    assert set(found) == set(kind.metrics) and kind.lacking(sample.row) == {}
    for name, other, area in (("psnr", truth, mask), ("psnr_kept", source, ~mask)):
        expected = peak_signal_noise_ratio(other[area], result[area], data_range=255)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)
    _, full = structural_similarity(
        truth, result, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    np.testing.assert_allclose(found["ssim"], full[mask].mean(), rtol=1e-3)
    assert kind.lacking(row()).keys() == {"psnr", "ssim"}
    whole = sample._replace(pixels=RowPixels(source, np.ones_like(mask), None))
    (found,) = kind.load()([whole])
    assert found == {
        "psnr_kept": "the mask covers the whole picture",
        "seam": "the mask has no border with two pixels on each side",
    }


def restated_seam(pixels, mask):
    """Pixel by pixel."""
    lab, found = rgb2lab(pixels / 255.0), []
    for colours, inside in ((lab, mask), (lab.swapaxes(0, 1), mask.T)):
        for y in range(1, len(colours) - 2):
            for x in range(colours.shape[1]):
                at = [inside[y + step, x] for step in (-1, 0, 1, 2)]
                if at in ([True, True, False, False], [False, False, True, True]):
                    steps = [
                        np.linalg.norm(colours[y + step + 1, x] - colours[y + step, x])
                        for step in (-1, 0, 1)
                    ]
                    found.append(steps[1] - (steps[0] + steps[2]) / 2)
    return np.mean(found)


def test_the_seam_is_the_step_across_the_border_beyond_those_beside_it():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    mask = ndimage.binary_dilation(rng.random((30, 40)) > 0.99, iterations=3)
    expected = restated_seam(noise, mask)
    np.testing.assert_allclose(seam(Picture.read(noise), mask), expected, rtol=1e-3, atol=1e-2)
    # None in a gradient or in even grey; the step of a pasted box is found as it is.
    grey = np.full((30, 40, 3), 100, np.uint8)
    ramp = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None] * 4 + 40, (30, 40, 3))
    box = box_mask((40, 30), (10, 10, 20, 20))
    assert seam(Picture.read(grey), box) == 0 and abs(seam(Picture.read(ramp), box)) < 0.3
    pasted = np.where(box[..., None], np.uint8(120), grey)
    step = rgb2lab(np.float64(pasted[12, 12]) / 255)[0] - rgb2lab(np.float64(grey[0, 0]) / 255)[0]
    np.testing.assert_allclose(seam(Picture.read(pasted), box), step, rtol=1e-3)
    assert seam(Picture.read(grey), np.eye(30, 40, dtype=bool)) is None


def test_words_are_read_inside_the_mask():
    from PIL import Image, ImageDraw, ImageFont

    sign = Image.new("RGB", (220, 120), "white")
    draw = ImageDraw.Draw(sign)
    draw.text((20, 20), "COFFEE", "black", ImageFont.load_default(40))
    draw.text((20, 75), "to go", "black", ImageFont.load_default(30))
    upper, both = box_mask(sign.size, (10, 12, 210, 66)), box_mask(sign.size, (5, 5, 215, 115))
    pixels = np.asarray(sign)
    assert words_read(pixels, upper, "Coffee") == 1.0
    assert words_read(pixels, both, "coffee to go") > 0.9
    assert words_read(pixels, upper, "teas") < 0.4


def test_squares_hold_the_mask_and_stay_inside():
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(8, 40, 2)
        ys, xs = (np.sort(rng.integers(0, n, 2)) for n in (height, width))
        mask = box_mask((width, height), (xs[0], ys[0], xs[1] + 1, ys[1] + 1))
        box = square_around(mask)
        part = mask[box]
        side = max(ys[1] - ys[0], xs[1] - xs[0]) + 1
        assert part.sum() == mask.sum() and part.shape == (min(side, height), min(side, width))


def test_prompts_are_embedded_as_transformers_does(tmp_path):
    tokenizer = clip_tokenizer(["a red apple on the table"], merges=20, max_length=16)
    text = TEXT | dict(
        vocab_size=len(tokenizer), max_position_embeddings=16, num_hidden_layers=2,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=QUICK, projection_dim=12)
    oracle = transformers.CLIPModel(config).eval()
    for parameter in oracle.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    oracle.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    prompts = ["a red apple", "a table", "the table " * 20]
    ids = tokenizer(prompts, padding="max_length", max_length=16, truncation=True)["input_ids"]
    with torch.no_grad():
        pooled = oracle.text_model(torch.tensor(ids)).pooler_output
        expected = oracle.text_projection(pooled).numpy()
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(ClipTextEmbedder(tmp_path)(prompts), expected, atol=2e-4)
    saved_clip(tmp_path / "vision", QUICK, both=False)
    with pytest.raises(ValueError, match="CLIPVisionModelWithProjection, without a text tower"):
        ClipTextEmbedder(tmp_path / "vision")


def measured(editor, values, missing=None, benchmark="b", task=Task.FILL, prefix="r"):
    return [
        MeasuredRow(benchmark, f"{prefix}{n}", editor, task, "", {"seam": value}, missing or {})
        for n, value in enumerate(values)
    ]


def test_tables_have_means_intervals_and_paired_differences():
    rng = np.random.default_rng(0)
    first = rng.normal(5, 3, 40)
    second = first + rng.normal(-0.5, 0.2, 40)  # clear only because rows are compared with rows
    rows = measured("one", first) + measured("two", second[:30])
    rows += measured("two", [1.0], task=Task.REMOVAL, prefix="x")
    groups = table_of(rows, ["one", "two"])
    cells = {editor: found["seam"] for editor, found in groups["b", Task.FILL.title].items()}
    assert cells["one"].count == 40 and cells["two"].count == 30
    np.testing.assert_allclose(cells["one"].mean, first.mean())
    half = 1.96 * first.std(ddof=1) / np.sqrt(40)
    np.testing.assert_allclose(cells["one"].high - cells["one"].low, 2 * half, rtol=0.1)
    assert cells["one"].difference is None
    np.testing.assert_allclose(cells["two"].difference, (second - first)[:30].mean())
    assert cells["two"].lead(METRICS["seam"]) == "better"
    assert cells["two"].lead(METRICS["psnr"]) == "worse"
    assert cells["one"].lead(METRICS["seam"]) == "" and cells["one"].low < cells["two"].mean
    assert cells["one"].lead(METRICS["judge"]) == "better"  # above 0.5
    assert groups["b", ALL]["two"]["seam"].count == 31
    assert groups["b", Task.REMOVAL.title]["two"]["seam"].few
    assert interval(np.array([2.0])) == (2.0, None, None)

    lines = list(csv.DictReader(as_csv(groups).splitlines()))
    assert {(line["task"], line["editor"]) for line in lines} >= {(ALL, "one"), (ALL, "two")}
    told = next(line for line in lines if line["task"] != ALL and line["editor"] == "two")
    np.testing.assert_allclose(float(told["difference"]), cells["two"].difference)
    text = as_markdown(groups, rows)
    assert f"| one | {METRICS['seam'].text(first.mean())} [" in text and "seam, ΔE ↓" in text


def test_what_is_not_measured_is_said_once_for_all_it_concerns():
    absent = {
        "lpips": "config.benchmark.lpips is empty",
        "lpips_kept": "config.benchmark.lpips is empty",
    }
    rows = measured("one", [1.0, 2.0], absent)
    rows += measured("two", [1.0], absent | {"words": "no words"})
    assert list(not_measured(rows)) == [
        "b, all editors, 2 of 2 pictures: config.benchmark.lpips is empty: no LPIPS, LPIPS outside",
        "b, two, 1 of 2 pictures (r0): no words: no letters read",
    ]
    json.dumps(list(not_measured(rows)))


def test_every_host_has_a_batch_in_every_chunk(monkeypatch):
    items = [((64, 64), n) for n in range(11)] + [((32, 64), n) for n in range(3)]
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    seen, chunks = [], []
    for index in range(3):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        shares = list(host_shares(items, lambda item: item[0], 2))
        chunks.append([share.chunk for share in shares])
        for share in shares:
            assert len(share.batch) == 2 and len({size for size, _ in share.batch}) == 1
            seen += share.own
    assert sorted(seen) == sorted(items) and chunks[0] == chunks[1] == chunks[2]
    assert [len(chunk) for chunk in chunks[0]] == [3, 6, 5]
