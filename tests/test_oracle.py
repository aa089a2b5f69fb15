"""The oracle annotator lowers the right scores under deliberate damage, and no others."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from onereward_jax.evaluation.gsb import Verdict
from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.evaluation.ssim import ssim_map
from onereward_jax.mini.oracle import (
    SceneOracle,
    SceneTruth,
    WordReader,
    annotate,
    structure_by_truth,
)
from onereward_jax.mini.oracle.reading import likeness
from onereward_jax.mini.world import WORDS, make_scene, named_pictures
from onereward_jax.stages.evaluate.oracle_verdicts import verdict
from onereward_jax.tasks import Dimension, Task

STRUCTURE, CONSISTENCY, TEXT, AESTHETICS, REMOVAL = Dimension
SCENES_EACH = 4
KINDS = [
    (Task.FILL, "object"),
    (Task.FILL, "word"),
    (Task.EXTEND_WITH_PROMPT, None),
    (Task.EXTEND_WITHOUT_PROMPT, None),
    (Task.REMOVAL, None),
]


@pytest.fixture(scope="module")
def oracle():
    return SceneOracle.mini_world(ocr=False)


@pytest.fixture(scope="module")
def triplets():
    """Triplets by (task, kind); their photographs are those of the test split."""
    rng = np.random.default_rng(5)
    found = {}
    for task, kind in KINDS:
        for _ in range(SCENES_EACH):
            scene = make_scene(rng, task, "test", kind=kind)
            triplet = SceneTruth.from_example(dataclasses.asdict(scene))
            found.setdefault((task, scene.kind), []).append(triplet)
    return found


def _blur(sigma):
    return lambda rgb, triplet: ndimage.gaussian_filter(rgb, (sigma, sigma, 0))


def _tint(strength):
    """A cast of colour in the mask only, with a seam all around."""
    cast = np.float32([strength, 0, -strength])
    return lambda rgb, triplet: rgb + cast * triplet.mask[..., None]


def _brighten(rgb, triplet):
    return rgb + 0.12 * triplet.mask[..., None]


def _saturate(factor):
    def damage(rgb, triplet):
        grey = rgb.mean(-1, keepdims=True)
        return grey + (rgb - grey) * factor

    return damage


def _grid(rgb, triplet):
    pattern = np.zeros(rgb.shape[:2])
    pattern[::8] = pattern[:, ::8] = 0.15
    return rgb + pattern[..., None]


def _noise(strength):
    def damage(rgb, triplet):
        return rgb + np.random.default_rng(0).normal(0, strength, rgb.shape)

    return damage


def _displace(pixels):
    """The unmasked area moves sideways: colours stay, the layout does not."""

    def damage(rgb, triplet):
        return np.where(triplet.mask[..., None], rgb, np.roll(rgb, pixels, 1))

    return damage


def _drift(strength):
    return lambda rgb, triplet: rgb + np.float32([strength, 0, -strength])


def _other_object(rgb, triplet):
    """A sprite of another name and colour in the right one's box."""
    sprites = named_pictures()
    names = sorted(sprites.keys() - {triplet.label})
    y0, x0, y1, x1 = triplet.box
    other = Image.fromarray(sprites[names[len(triplet.prompt) % len(names)]])
    other.thumbnail((x1 - x0, y1 - y0))
    picture = Image.fromarray(np.round(triplet.background.rgb * 255).astype(np.uint8))
    corner = ((x0 + x1 - other.width) // 2, (y0 + y1 - other.height) // 2)
    picture.paste(other, corner, other)
    return np.asarray(picture) / 255.0


def _mean_scores(oracle, triplets, damage=lambda rgb, triplet: rgb):
    rows = []
    for triplet in triplets:
        rgb = np.clip(damage(triplet.target.rgb, triplet), 0, 1)
        rows.append(oracle.scores((rgb * 2 - 1).astype(np.float32), triplet))
    return {dimension: float(np.mean([row[dimension] for row in rows])) for dimension in rows[0]}


def _drops(oracle, triplets, damage):
    truth, damaged = _mean_scores(oracle, triplets), _mean_scores(oracle, triplets, damage)
    return {dimension: truth[dimension] - damaged[dimension] for dimension in truth}


@pytest.mark.parametrize(
    ("damage", "kind", "hit", "spared"),
    [
        (_blur(1.0), "scene", {AESTHETICS}, {STRUCTURE, TEXT}),
        (_noise(0.05), "object", {AESTHETICS}, {STRUCTURE, TEXT}),
        (_grid, "object", {AESTHETICS}, {TEXT}),
        (_saturate(2.0), "scene", {AESTHETICS, CONSISTENCY}, {STRUCTURE}),
        (_tint(0.12), "object", {CONSISTENCY}, {STRUCTURE, AESTHETICS}),
        (_tint(0.12), "word", {CONSISTENCY}, {STRUCTURE, AESTHETICS, TEXT}),
        (_brighten, "object", {CONSISTENCY}, {STRUCTURE, AESTHETICS}),
        (_drift(0.12), "word", {CONSISTENCY}, {STRUCTURE, TEXT}),
        (_drift(0.2), "scene", {CONSISTENCY, TEXT}, {STRUCTURE}),
        (_displace(5), "word", {STRUCTURE}, {TEXT}),
        (_displace(5), "object", {STRUCTURE}, {TEXT}),
        (_other_object, "object", {TEXT}, {STRUCTURE, CONSISTENCY}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_damage_lowers_the_right_dimensions(oracle, triplets, damage, kind, hit, spared):
    task = Task.EXTEND_WITH_PROMPT if kind == "scene" else Task.FILL
    drops = _drops(oracle, triplets[task, kind], damage)
    least = min(drops[dimension] for dimension in hit)
    assert least > 0.1, drops
    for dimension in spared:
        assert drops[dimension] < max(0.4 * least, 0.05), drops


@pytest.mark.parametrize(
    ("dimension", "damage", "strengths"),
    [
        (AESTHETICS, _blur, (0.6, 1.0, 2.0, 4.0)),
        (AESTHETICS, _saturate, (1.6, 2.0, 3.0)),
        (AESTHETICS, _noise, (0.03, 0.06, 0.12)),
        (CONSISTENCY, _tint, (0.05, 0.1, 0.2)),
        (CONSISTENCY, _drift, (0.05, 0.1, 0.2)),
        (STRUCTURE, _displace, (1, 3, 6)),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_more_damage_scores_lower(oracle, triplets, dimension, damage, strengths):
    scores = [
        _mean_scores(oracle, triplets[Task.EXTEND_WITHOUT_PROMPT, "scene"], damage(s))[dimension]
        for s in strengths
    ]
    scores.insert(0, 1.0)
    assert (np.diff(scores) < -0.01).all(), scores


def test_the_truth_scores_about_one_in_every_dimension(oracle, triplets):
    for (_, kind), kept in triplets.items():
        for dimension, score in _mean_scores(oracle, kept).items():
            visible = kind == "scene" and dimension is STRUCTURE
            least = 0.85 if dimension is TEXT or visible else 0.999
            assert score > least, (dimension, score)


def _in_mask(content):
    return lambda rgb, t: np.where(t.mask[..., None], content(t), t.image.rgb)


def _streaks(t):
    nearest = ndimage.distance_transform_edt(t.mask, return_distances=False, return_indices=True)
    return t.image.rgb[tuple(nearest)]


def test_structure_of_extensions_prefers_what_looks_right(oracle):
    rng = np.random.default_rng(6)
    scenes = [make_scene(rng, Task.EXTEND_WITH_PROMPT, "test") for _ in range(32)]
    kept = [SceneTruth.from_example(dataclasses.asdict(scene)) for scene in scenes]
    other = dict(zip(kept, kept[1:] + kept[:1]))
    truth, streaks, other_photograph, flat = (
        _mean_scores(oracle, kept, _in_mask(content))[STRUCTURE]
        for content in (
            lambda t: t.target.rgb,
            _streaks,
            lambda t: other[t].target.rgb,
            lambda t: t.image.rgb[~t.mask].mean(0),
        )
    )
    assert truth > 0.93, truth
    assert flat + 0.1 < other_photograph < truth - 0.15
    assert streaks < truth - 0.15


def test_nothing_hidden_counts_in_the_structure_of_extensions(oracle, triplets):
    first, second, *_ = triplets[Task.EXTEND_WITH_PROMPT, "scene"]
    result = _in_mask(lambda t: t.background.rgb[::-1])(None, first) * 2 - 1
    hidden = Picture(_in_mask(lambda t: second.target.rgb)(None, first))
    changed = dataclasses.replace(first, target=hidden, background=hidden)
    assert oracle.parts(result, first)[STRUCTURE] == oracle.parts(result, changed)[STRUCTURE]
    picture = Picture.read(result)
    assert structure_by_truth.score(picture, first) != structure_by_truth.score(picture, changed)


def test_removal_falls_with_every_trace_of_the_object(oracle, triplets):
    kept = triplets[Task.REMOVAL, "object"]

    def leftover(share):
        return lambda rgb, triplet: rgb + share * (triplet.image.rgb - rgb)

    scores = [_mean_scores(oracle, kept, leftover(share))[REMOVAL] for share in (0, 0.2, 0.5, 1)]
    assert (np.diff(scores) < -0.05).all(), scores

    invented = _mean_scores(oracle, kept, _other_object)[REMOVAL]
    smeared = _mean_scores(
        oracle,
        kept,
        lambda rgb, t: np.where(t.mask[..., None], ndimage.gaussian_filter(rgb, (2, 2, 0)), rgb),
    )[REMOVAL]
    assert invented < 0.75 < smeared < 1.0


def test_an_empty_mask_is_no_object(oracle, triplets):
    for triplet in triplets[Task.FILL, "object"]:
        nothing = triplet.background.rgb * 2 - 1
        parts = oracle.parts(nothing, triplet)
        assert parts[TEXT]["recognition"] < 0.3
        assert parts[STRUCTURE]["form"] < 0.2


def test_a_blurry_right_word_beats_a_sharp_wrong_one(oracle, triplets):
    kept = triplets[Task.FILL, "word"]
    blurry = _mean_scores(oracle, kept, _blur(1.2))[TEXT]
    mirrored = _mean_scores(
        oracle, kept, lambda rgb, t: np.where(t.mask[..., None], rgb[:, ::-1], rgb)
    )[TEXT]
    wrong = []
    for triplet in kept:
        label = next(word for word in WORDS if word != triplet.label)
        other = dataclasses.replace(triplet, label=label)
        wrong.append(oracle.scores(triplet.target.rgb * 2 - 1, other)[TEXT])
    assert blurry > 0.7
    assert max(mirrored, np.mean(wrong)) < 0.4


def test_ocr_reads_the_words_of_the_truth(triplets):
    reader = WordReader()
    read = []
    for triplet in triplets[Task.FILL, "word"][:3]:
        pixels = np.round(triplet.target.rgb * 255).astype(np.uint8)
        read.append(likeness(reader(pixels, triplet.drawn_box), triplet.label))
    assert np.mean(read) > 0.7, read
    assert likeness("0PEN", "open") == 0.75
    assert likeness("", "open") == 0.0


def test_scores_stay_in_range_and_take_both_pixel_formats(oracle, triplets):
    rng = np.random.default_rng(0)
    for kept in triplets.values():
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        as_float = pixels.astype(np.float32) / 127.5 - 1
        scores = oracle.scores(pixels, kept[0])
        assert scores == pytest.approx(oracle.scores(as_float, kept[0]), abs=1e-3)
        for constant in (0, 127, 255):
            scores |= oracle.scores(np.full_like(pixels, constant), kept[0])
            assert all(0 <= score <= 1 for score in scores.values()), scores


def test_larger_scenes_are_measured_alike(oracle):
    scene = make_scene(np.random.default_rng(2), Task.FILL, "test", kind="object", size=128)
    triplet = SceneTruth.from_example(dataclasses.asdict(scene))
    drops = _drops(oracle, [triplet], _tint(0.12))
    assert drops[CONSISTENCY] > 0.3
    assert drops[STRUCTURE] < 0.1


def test_bad_input_is_named(oracle, triplets):
    triplet = triplets[Task.FILL, "object"][0]
    with pytest.raises(ValueError, match=r"\(32, 32\)"):
        oracle.scores(np.zeros((32, 32, 3), np.uint8), triplet)
    with pytest.raises(ValueError, match="NaN"):
        oracle.scores(np.full((64, 64, 3), np.nan, np.float32), triplet)
    with pytest.raises(ValueError, match="'dragon'"):
        oracle.scores(triplet.target.rgb, dataclasses.replace(triplet, label="dragon"))


def test_ssim_equals_scikit_image(triplets):
    from skimage.metrics import structural_similarity

    a = triplets[Task.FILL, "object"][0].target.rgb
    b = np.clip(_noise(0.1)(a, None), 0, 1).astype(np.float32)
    _, expected = structural_similarity(
        a, b, full=True, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    np.testing.assert_allclose(ssim_map(a, b), expected.mean(-1), atol=2e-4)


def _row(structure, consistency):
    return {STRUCTURE: structure, CONSISTENCY: consistency}


def test_annotate_picks_best_and_worst_per_dimension():
    candidates = [_row(0.2, 0.50), _row(0.9, 0.52), _row(0.5, 0.53)]
    answers = annotate(candidates, np.random.default_rng(0), noise_rate=0.0, margin=0.1)
    assert answers == {STRUCTURE: (1, 0), CONSISTENCY: None}


def test_annotate_swaps_at_the_noise_rate():
    rng = np.random.default_rng(0)
    candidates = [_row(0.0, 0.5), _row(1.0, 0.5)]
    answers = [
        annotate(candidates, rng, noise_rate=0.2, margin=0.04)[STRUCTURE] for _ in range(2000)
    ]
    assert np.mean([answer == (0, 1) for answer in answers]) == pytest.approx(0.2, abs=0.03)


def test_verdict_is_antisymmetric_and_has_a_dead_zone():
    better, worse = _row(0.8, 0.5), _row(0.6, 0.6)
    assert verdict(better, worse, 0.03) is Verdict.GOOD
    assert verdict(worse, better, 0.03) is Verdict.BAD
    assert verdict(better, worse, 0.06) is verdict(worse, better, 0.06) is Verdict.SAME
