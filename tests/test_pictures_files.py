"""Files of pictures: orientation, frames, damage, limits, and what is written."""

from __future__ import annotations

import pathlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from made_pictures import colours, encoded, png, rgb_profile, tiff
from PIL import Image, ImageOps, features
from PIL.PngImagePlugin import PngInfo

from onereward_jax.pictures import (
    check_output,
    read_mask,
    read_photograph,
    read_picture,
    stored_size,
    write_picture,
)
from onereward_jax.pictures.orientation import METHODS

RGB = np.concatenate([colours(seed) for seed in (1, 2)])
PICTURE = Image.fromarray(RGB)


def exif(number: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = number
    return found


def xmp(number: int) -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-'
        b'rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        b'tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>' % number
    )


def turned(number: int, kind: str) -> bytes:
    """A file whose metadata say that it is to be turned."""
    if kind == "PNG, behind the pixels":
        return png(RGB, 2, after=[(b"eXIf", exif(number).tobytes()[6:])])
    if kind == "PNG, XMP":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp(number).decode())
        return encoded(PICTURE, "PNG", pnginfo=info)
    if kind == "JPEG, XMP":
        return encoded(PICTURE, "JPEG", xmp=xmp(number))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    return encoded(PICTURE, kind, exif=exif(number), **lossless)


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize(
    "kind",
    ["JPEG", "PNG", "TIFF", "WEBP", "PNG, behind the pixels", "PNG, XMP", "JPEG, XMP", "AVIF"],
)
def test_pictures_are_upright_wherever_they_come_from(number, kind, tmp_path):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    content = turned(number, kind)
    (tmp_path / "a").write_bytes(content)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "a"))
    if number > 1:
        stored = PICTURE.transpose(METHODS[number])
        assert expected.size == stored.size
    for source in (tmp_path / "a", content, Image.open(tmp_path / "a")):
        photograph = read_photograph(source)
        assert not photograph.notes and photograph.as_stored == (number == 1 and kind[:4] == "JPEG")
        np.testing.assert_array_equal(np.asarray(photograph.pixels), np.asarray(expected))
        assert stored_size(source) == expected.size
    assert read_mask(content).size == expected.size


def test_sizes_are_read_from_headers(tmp_path):
    """A picture of which only the start is there has a size."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG"):
        content = encoded(Image.fromarray(noise), kind, exif=exif(6))
        (tmp_path / "a").write_bytes(content[: len(content) // 2])
        assert stored_size(tmp_path / "a") == (300, 200)
        with pytest.raises(ValueError, match="a is not a readable image: "):
            read_photograph(tmp_path / "a")


def bad_exif() -> bytes:
    """Orientation 6 and a negative resolution, which Pillow cannot write back."""
    head = b"II*\0" + struct.pack("<IH", 8, 2)
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHII", 0x011A, 10, 1, 38)
    return b"Exif\0\0" + head + entries + bytes(4) + struct.pack("<ii", -1, 0)


DAMAGED = {
    "EXIF that cannot be written back": encoded(PICTURE, "PNG", exif=bad_exif()),
    "EXIF of noise": png(RGB, 2, [(b"eXIf", bytes(range(100)))]),
    "cut EXIF": png(RGB, 2, [(b"eXIf", exif(6).tobytes()[6:24])]),
    "damaged text": png(RGB, 2, [(b"tEXt", b"a\0b")]).replace(b"tEXta\0b", b"tEXta\0c"),
    "damaged text behind": png(RGB, 2, after=[(b"tEXt", b"a\0b")]).replace(b"a\0b", b"a\0c"),
    "text that inflates": png(RGB, 2, [(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 24)))]),
    "text that inflates, behind": png(
        RGB, 2, after=[(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(1 << 24)))]
    ),
    "long text": png(RGB, 2, [(b"tEXt", b"a\0" + b"b" * (1 << 21))] * 40),
    "profile that inflates": png(RGB, 2, [(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 24)))]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_metadata_leave_the_pixels(name):
    content = DAMAGED[name]
    np.testing.assert_array_equal(np.asarray(read_picture(content)), RGB)
    if "EXIF" in name:
        (note,) = read_photograph(content).notes
        assert note == "its EXIF data are damaged: the picture is not turned"
        assert stored_size(content) == PICTURE.size


def test_damaged_pixels_are_refused():
    """Pillow does not compare the checksum."""
    content = bytearray(png(RGB, 2))
    place = content.index(b"IDAT") + 200
    refused = 0
    for bit in range(64):
        damaged = content.copy()
        damaged[place + bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="is not a readable image: damaged"):
            read_picture(bytes(damaged))
        refused += 1
    assert refused == 64


FRAMES = [PICTURE.copy(), PICTURE.rotate(90), PICTURE.rotate(180)]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP", "MPO"])
def test_of_several_frames_the_first_is_read_and_said(kind):
    lossless = {"lossless": True} if kind == "WEBP" else {}
    # Pillow keeps the settings of the last format in a picture.
    first, *others = (frame.copy() for frame in FRAMES)
    content = encoded(first, kind, save_all=True, append_images=others, **lossless)
    photograph = read_photograph(content)
    assert photograph.notes == ("only the first of its 3 frames is read",)
    tolerance = 20 if kind in ("GIF", "MPO") else 0  # a palette; JPEG
    assert np.abs(np.asarray(photograph.pixels).astype(int) - RGB).mean() <= tolerance


def test_notes_are_logged_once(caplog):
    content = encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:])
    for _ in range(2):
        read_picture(content, "a note to be logged once")
    told = [one.getMessage() for one in caplog.records]
    assert told == ["a note to be logged once: only the first of its 3 frames is read"]


def test_bombs_are_refused_from_the_header():
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    content = png(RGB, 2)
    place = content.index(b"IHDR")
    check = struct.pack(">I", zlib.crc32(b"IHDR" + head))
    bomb = content[: place + 4] + head + check + content[place + 4 + len(head) + 4 :]
    for read in (read_photograph, read_mask, stored_size):
        with pytest.raises(ValueError, match="exceeds limit"):
            read(bomb)


FORMATS = {
    "PNG": encoded(PICTURE, "PNG", exif=exif(6), icc_profile=rgb_profile("Display P3")),
    "palette": encoded(PICTURE.quantize(20), "PNG", transparency=2),
    "JPEG": encoded(PICTURE, "JPEG", exif=exif(6), icc_profile=rgb_profile("Display P3")),
    "progressive": encoded(PICTURE, "JPEG", progressive=True),
    "CMYK": encoded(PICTURE.convert("CMYK"), "JPEG"),
    "WebP": encoded(PICTURE, "WEBP", exif=exif(6)),
    "GIF": encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    "APNG": encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]),
    "TIFF": encoded(PICTURE, "TIFF", exif=exif(6)),
    "LZW": encoded(PICTURE, "TIFF", compression="tiff_lzw"),
    "48 bits": tiff(RGB.astype(np.uint16) * 257, 2),
    "MPO": encoded(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:]),
    "JPEG 2000": encoded(PICTURE, "JPEG2000"),
    "BMP": encoded(PICTURE, "BMP"),
    "TGA": encoded(PICTURE, "TGA"),
    "ICO": encoded(PICTURE, "ICO"),
    "PPM": encoded(PICTURE, "PPM"),
}


@pytest.mark.filterwarnings("ignore")  # Pillow's own, about damaged metadata
@pytest.mark.parametrize("name", FORMATS)
def test_cut_and_changed_files_give_a_sentence_or_a_picture(name):
    content, rng = FORMATS[name], np.random.default_rng(0)
    changed = [content[:cut] for cut in range(0, len(content), max(1, len(content) // 25))]
    for _ in range(40):
        other = np.frombuffer(content, np.uint8).copy()
        reach = min(len(other), int(rng.choice([64, 600, 10**6])))
        other[rng.integers(0, reach, 2)] = rng.integers(0, 256, 2)
        changed.append(other.tobytes())
    for one in changed:
        for read in (read_photograph, read_mask, stored_size):
            try:
                read(one)
            except ValueError as error:
                assert len(str(error)) < 400 and "\n" not in str(error)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp", ".bmp", ".ppm", ".jp2", ".qoi"])
def test_lossless_formats_keep_every_bit(suffix, tmp_path):
    write_picture(tmp_path / f"a{suffix}", PICTURE)
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / f"a{suffix}")), RGB)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".avif", ".heic"])
def test_lossy_formats_stay_close(suffix, tmp_path):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    profile = rgb_profile("Display P3")
    write_picture(tmp_path / f"a{suffix}", PICTURE, profile)
    photograph = read_photograph(tmp_path / f"a{suffix}")
    difference = np.abs(np.asarray(photograph.pixels).astype(int) - RGB)
    assert difference.mean() < 1.5 and difference.max() <= 12
    assert photograph.profile == profile
    if suffix == ".jpg":
        with Image.open(tmp_path / "a.jpg") as stored:
            assert stored.layer[0][1:3] == stored.layer[1][1:3], "4:4:4"
            assert max(max(table) for table in stored.quantization.values()) <= 12


def test_files_are_written_whole_upright_and_without_old_metadata(tmp_path):
    out = tmp_path / "new" / "a.jpg"
    PICTURE.save(tmp_path / "a.jpg", exif=exif(6), icc_profile=rgb_profile("ProPhoto", 1.8))
    opened = Image.open(tmp_path / "a.jpg")
    write_picture(out, opened)  # as its pixels are, though its EXIF data say otherwise
    with Image.open(out) as stored:
        assert stored.size == PICTURE.size and not stored.getexif()
        assert "icc_profile" not in stored.info
    before = out.read_bytes()
    with pytest.raises(ValueError, match="cannot be written"):
        write_picture(out, Image.new("RGBA", (8, 8)))
    assert out.read_bytes() == before and list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x.psd", "not written as .psd: use .png, .jpg"),
        ("x.xyz", "not written as .xyz"),
        ("x.gif", "not written as .gif"),
        ("x", "the name has no suffix"),
        ("folder", "is a folder"),
        ("file.png/x.png", "file.png is a file"),
    ],
)
def test_what_cannot_be_written_is_refused_first(name, reason, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.png").touch()
    with pytest.raises(ValueError, match=reason):
        check_output(tmp_path / name)
    check_output(tmp_path / "new" / "x.jpeg")
    with pytest.raises(ValueError, match="is a URL"):
        check_output("s3://bucket/x.png")
    with pytest.raises(ValueError, match="WEBP has at most 16383 pixels per side"):
        check_output(tmp_path / "x.webp", (20000, 10))


def test_heic_photographs_are_read_or_name_the_package(tmp_path):
    """In a process that has not registered the plug-in, with and without the package."""
    pytest.importorskip("pillow_heif")
    write_picture(tmp_path / "a.heic", PICTURE)
    code = (
        "import sys\n"
        "if len(sys.argv) > 2: sys.modules['pillow_heif'] = None\n"
        "from onereward_jax.pictures import check_output, read_picture\n"
        "try: print(read_picture(sys.argv[1]).size)\n"
        "except ValueError as error: print(error)\n"
        "try: check_output('x.heic')\n"
        "except ValueError as error: print(error)\n"
    )
    with_it, without = (
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "a.heic", *more],
            capture_output=True, text=True, check=True, cwd=pathlib.Path(__file__).parents[1],
        ).stdout
        for more in ((), ("without",))
    )  # fmt: skip
    assert with_it == f"{PICTURE.size}\n"
    assert without.count("pip install pillow-heif") == 2


def test_a_large_photograph_takes_a_few_times_its_pixels(tmp_path):
    """24 megapixels are 72 MB of RGB; Pillow itself keeps 4 bytes per pixel."""
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    small.resize((6000, 4000)).save(tmp_path / "a.jpg", icc_profile=rgb_profile("Display P3"))
    code = (
        "import resource, sys\n"
        "from onereward_jax.pictures import read_photograph, stored_size\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "start = peak()\n"
        "assert stored_size(sys.argv[1]) == (6000, 4000)\n"
        "header = peak() - start\n"
        "photograph = read_photograph(sys.argv[1])\n"
        "photograph.srgb()\n"
        "print(header, peak() - start)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.jpg"],
        capture_output=True, text=True, check=True, cwd=pathlib.Path(__file__).parents[1],
    ).stdout  # fmt: skip
    header, whole = map(int, found.split())
    assert header < 20 and whole < 4 * 72, f"{header} MiB for the size, {whole} MiB for the pixels"
