"""Colour profiles: to sRGB against the formulas, and back so that a photograph keeps its pixels."""

from __future__ import annotations

import numpy as np
import pytest
from made_pictures import (
    cmyk_profile,
    colours,
    encoded,
    grey_profile,
    linear,
    nonlinear,
    png,
    rgb_profile,
    to_xyz,
)
from PIL import Image, ImageCms

from onereward_jax.pictures import read_mask, read_photograph, read_picture, write_picture

RGB = np.concatenate([colours(seed) for seed in range(4)])
PICTURE = Image.fromarray(RGB)
GAMMAS = {"Display P3": None, "Adobe RGB": 563 / 256, "ProPhoto": 460 / 256}


def in_srgb(pixels: np.ndarray, name: str) -> np.ndarray:
    """Pixels of a space in sRGB, 0 to 255, by the formulas."""
    gamma = GAMMAS[name]
    light = linear(pixels / 255) if gamma is None else (pixels / 255) ** gamma
    return 255 * nonlinear(light @ (np.linalg.inv(to_xyz("sRGB")) @ to_xyz(name)).T)


@pytest.mark.parametrize("name", GAMMAS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_wide_spaces_are_converted_and_kept(name, kind, tmp_path):
    profile = rgb_profile(name, GAMMAS[name])
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(
        kind, {}
    )
    content = encoded(PICTURE, kind, icc_profile=profile, **lossless)
    photograph = read_photograph(content)
    own = np.asarray(photograph.pixels)
    assert photograph.profile == profile and photograph.notes == () and not photograph.as_stored
    assert np.abs(own.astype(int) - RGB).max() <= (5 if kind == "JPEG" else 0)
    assert np.abs(np.asarray(photograph.srgb()) - in_srgb(own, name)).max() <= 1

    # An edit pasted into the photograph: its colours are right, the others are the same bits.
    edit = Image.fromarray(np.full((8, 8, 3), (90, 130, 110), np.uint8))
    result = photograph.pixels.copy()
    result.paste(photograph.from_srgb(edit), (0, 0))
    write_picture(tmp_path / "out.png", result, photograph.profile)
    again = read_photograph(tmp_path / "out.png")
    assert again.profile == profile
    np.testing.assert_array_equal(np.asarray(again.pixels)[8:], own[8:])
    shown = np.asarray(again.srgb())[:8, :8].astype(int)
    assert np.abs(shown - (90, 130, 110)).max() <= 2
    # A format without profiles gets sRGB.
    write_picture(tmp_path / "out.bmp", result, photograph.profile)
    np.testing.assert_array_equal(
        np.asarray(read_picture(tmp_path / "out.bmp")), np.asarray(again.srgb())
    )


@pytest.mark.parametrize("profile", [
    rgb_profile("sRGB"), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
])  # fmt: skip
def test_srgb_by_any_profile_stays_bit_equal(profile):
    photograph = read_photograph(encoded(PICTURE, "PNG", icc_profile=profile))
    assert photograph.profile == profile
    np.testing.assert_array_equal(np.asarray(photograph.srgb()), RGB)
    np.testing.assert_array_equal(np.asarray(photograph.from_srgb(PICTURE)), RGB)


def test_a_gamma_that_is_not_srgb_is_converted():
    photograph = read_photograph(encoded(PICTURE, "PNG", icc_profile=rgb_profile("sRGB", 1.0)))
    expected = 255 * nonlinear(RGB / 255)
    assert np.abs(np.asarray(photograph.srgb()) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_greys_with_a_profile_become_srgb(mode):
    grey = PICTURE.convert("1" if mode == "1" else "L")
    pixels = np.asarray(grey.convert("L"))
    if mode == "I;16":
        grey = Image.fromarray(pixels.astype(np.uint16) * 257)
    content = encoded(grey.convert(mode), "PNG", icc_profile=grey_profile(1.0))
    photograph = read_photograph(content)
    assert photograph.profile is None
    expected = 255 * nonlinear(pixels[..., None] / 255)
    assert np.abs(np.asarray(photograph.srgb()) - expected).max() <= 1
    # A grey picture with a profile of colours is common.
    tagged = read_photograph(encoded(PICTURE.convert("L"), "PNG", icc_profile=rgb_profile("sRGB")))
    assert tagged.notes == () and tagged.profile is not None


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_with_a_profile_become_srgb(kind):
    """At the corners of the profile's table: the colour of each full ink."""
    to_lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    inks = np.array([(40, 150, 190), (190, 50, 110), (240, 220, 60), (30, 30, 30)]) / 255
    full = np.moveaxis(np.indices((2, 2, 2, 2)), 0, -1)[..., None] == 1
    mild = (255 * np.where(full, inks, 1).prod(-2)).astype(np.uint8)
    lab = ImageCms.profileToProfile(
        Image.fromarray(mild.reshape(4, 4, 3)), *to_lab, outputMode="LAB"
    )
    corners = np.asarray(lab) ^ np.array([0, 128, 128], np.uint8)  # Pillow gives signed a and b
    profile = cmyk_profile(corners.reshape(mild.shape))
    for place in np.ndindex(2, 2, 2, 2):
        sheet = Image.new("CMYK", (8, 8), tuple(255 * ink for ink in place))
        options = {"quality": 100} if kind == "JPEG" else {}
        photograph = read_photograph(encoded(sheet, kind, icc_profile=profile, **options))
        assert photograph.profile is None and "CMYK" in photograph.notes[0]
        # Dark colours get darker by black point compensation.
        found = np.asarray(photograph.srgb())[0, 0].astype(int)
        assert np.abs(found - mild[place]).max() <= (25 if mild[place].max() < 50 else 12)


BROKEN = {
    "noise": bytes(range(200)) * 3,
    "cut": rgb_profile("Display P3")[:300],
    "of greys": grey_profile(2.2),
    "of inks": cmyk_profile(np.zeros((2, 2, 2, 2, 3), np.uint8)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_profile_that_does_not_fit_is_ignored_with_a_note(name):
    photograph = read_photograph(encoded(PICTURE, "PNG", icc_profile=BROKEN[name]))
    assert photograph.profile is None
    assert "its colour profile is " in photograph.notes[0] and "ignored" in photograph.notes[0]
    np.testing.assert_array_equal(np.asarray(photograph.srgb()), RGB)


def test_chunks_of_png_about_colours_are_not_applied():
    content = png(RGB, 2, [(b"gAMA", (100000).to_bytes(4)), (b"cICP", bytes([12, 13, 0, 1]))])
    np.testing.assert_array_equal(np.asarray(read_picture(content)), RGB)


def test_profiles_do_not_change_masks():
    content = encoded(PICTURE.convert("L"), "PNG", icc_profile=grey_profile(1.0))
    np.testing.assert_array_equal(np.asarray(read_mask(content)), np.asarray(PICTURE.convert("L")))
