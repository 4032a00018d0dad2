"""The pixel frames of a brick: the optical coadds', and that of WISE."""

from typing import NamedTuple

from .bricks import IMAGE_SIZE_PIX, brick_center
from .releases import PIXEL_SCALE_ARCSEC, WISE_BANDS
from .tangent import TangentGrid

__all__ = ["OPTICAL", "WISE", "Frame", "frame_of_bands", "image_grid"]


class Frame(NamedTuple):
    """Size and scale of a kind of brick image.

    Attributes
    ----------
    name : str
        ``'optical'`` or ``'wise'``.
    size_pix : int
        Width and height.
    scale_arcsec : float
        Pixel size.
    """

    name: str
    size_pix: int
    scale_arcsec: float


OPTICAL = Frame("optical", IMAGE_SIZE_PIX, PIXEL_SCALE_ARCSEC)
WISE = Frame("wise", 342, 2.75)
"""What legacypipe makes of 3600 pixels of 0.262 arcsec at 2.75: ``int(342.98)``."""


def frame_of_bands(bands):
    """Return the frame that bands are in; all of them must be in one.

    Parameters
    ----------
    bands : tuple of str or None
        `None` for the optical ones.

    Returns
    -------
    Frame
    """
    return WISE if bands and bands[0] in WISE_BANDS else OPTICAL


def image_grid(brick, frame):
    """Return the pixel grid of a brick's images of one frame.

    Parameters
    ----------
    brick : int
        Brick id.
    frame : Frame
        The frame.

    Returns
    -------
    TangentGrid
        Tangent at the brick's centre, in the middle of the image.
    """
    ra, dec = brick_center(brick)
    middle = (frame.size_pix - 1) / 2
    return TangentGrid(float(ra), float(dec), middle, middle, frame.scale_arcsec / 3600)
