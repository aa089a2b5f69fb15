"""Pictures as people have them, to 8-bit sRGB and back: every command and stage reads them here.

`read_photograph` keeps what is needed to write a result in the photograph's own colours;
`read_picture` gives the pixels only. `read_mask` gives greys: 128 and more mean "edit here".
"""

from onereward_jax.pictures.mask_reading import RefusedMaskError, mask_warning, read_mask
from onereward_jax.pictures.opening import PictureSource, picture_list, stored_size
from onereward_jax.pictures.photograph import Photograph, read_photograph, read_picture
from onereward_jax.pictures.picture_writing import check_output, write_picture

__all__ = [
    "Photograph",
    "PictureSource",
    "RefusedMaskError",
    "check_output",
    "mask_warning",
    "picture_list",
    "read_mask",
    "read_photograph",
    "read_picture",
    "stored_size",
    "write_picture",
]
