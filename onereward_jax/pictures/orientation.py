"""Which way up a picture is: the orientation that its EXIF or XMP data states."""

from __future__ import annotations

from PIL import ExifTags, Image

from onereward_jax.pictures.png_chunks import has_late_texts

UPRIGHT = 1
"""EXIF's number of a picture that needs no turning; 5 to 8 exchange width and height."""

METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's number -> what makes the picture upright, as in `PIL.ImageOps.exif_transpose`."""

EMPTY_EXIF = 14
"""Bytes of EXIF data without an entry."""

BROKEN = "its EXIF data are damaged: the picture is not turned"


def is_turned(orientation: int) -> bool:
    """Whether the upright picture has width and height exchanged."""
    return orientation in range(5, 9)


def header_orientation(picture: Image.Image) -> int:
    """The orientation, as `stored_orientation`, without decoding pixels if possible."""
    return stored_orientation(picture)[0]


def stored_orientation(picture: Image.Image) -> tuple[int, str]:
    """(orientation, note): EXIF's number from 1 to 8, and what is wrong with it, if anything.

    EXIF data that cannot be read, or not be written back, count as damaged: such a picture is not
    turned. TIFFs are always 1: Pillow turns them itself.
    """
    if picture.format == "TIFF":
        return UPRIGHT, ""
    try:
        if _png_without_late_metadata(picture):
            exif = Image.Image.getexif(picture)  # PNG's own decodes the pixels first
        else:
            exif = picture.getexif()
        found = exif.get(ExifTags.Base.Orientation, UPRIGHT)
        content = picture.info.get("exif", b"").removeprefix(b"Exif\0\0")
        if not exif and len(content) > EMPTY_EXIF:
            return UPRIGHT, BROKEN
        if found == UPRIGHT:
            return UPRIGHT, ""
        exif.tobytes()
    except Exception:  # noqa: BLE001 — damaged EXIF raises nearly every type of error
        return UPRIGHT, BROKEN
    return (found, "") if found in METHODS else (UPRIGHT, "")


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """The picture, turned; the same object if it is upright."""
    return picture.transpose(METHODS[orientation]) if orientation in METHODS else picture


def _png_without_late_metadata(picture: Image.Image) -> bool:
    """Whether it is a PNG, not decoded yet, with no metadata behind its pixels."""
    file = getattr(picture, "fp", None)
    if picture.format != "PNG" or file is None:
        return False
    return not has_late_texts(file)
