"""Reductions of one's own, as legacypipe makes them with other sizes, scales and centres."""

from __future__ import annotations

from functools import partial
from os import PathLike
from pathlib import Path

from ..survey import bricks
from ..survey.pixel_grids import TangentGrid
from . import sky
from .brick_table_files import bricks_file, region_file
from .coadds import scene_files
from .made_once import write_whole
from .planes import BrickScene, strips

_COARSEST_ARCSEC = 0.45


def write_reduction(
    folder: str | PathLike[str],
    *,
    pixel_scale_arcsec: float = 0.262,
    width: int = 3600,
    height: int | None = None,
    zoom: tuple[int, int, int, int] | None = None,
    bands: str = "grz",
) -> Path:
    """Write a local mirror in which brick 0451p000 of DR10 was reduced otherwise than the survey's.

    The names are the survey's, the pixels are not: what legacypipe's options ``--pixscale``,
    ``--width``, ``--height`` and ``--zoom`` make of a brick.  The sky is the same.

    Parameters
    ----------
    folder : str or path-like
        The mirror's folder.
    pixel_scale_arcsec : float, default: 0.262
        Side of a pixel; at most 0.45, or the simulated light would not be sampled.
    width, height : int, optional
        Size of the image about the brick's centre, in pixels; 3600, and as high as wide.
    zoom : (int, int, int, int), optional
        The part of that image that is kept: x0, x1, y0, y1, counted from 0, the ends not included.
    bands : str, default: 'grz'
        Bands; ``image``, ``invvar``, ``nexp`` and ``maskbits`` are written.

    Returns
    -------
    `~pathlib.Path`
        The folder, for ``mirror=``.

    Raises
    ------
    ValueError
        If the pixels are too large, or the part is not inside of the image.

    Examples
    --------
    >>> import tempfile
    >>> from astroquery_lis import sandbox
    >>> folder = sandbox.write_reduction(tempfile.mkdtemp(), zoom=(100, 400, 0, 200), bands='r')
    >>> sorted(path.name for path in folder.rglob('*-image-r*'))
    ['legacysurvey-0451p000-image-r.fits.fz']
    """
    height = width if height is None else height
    x0, x1, y0, y1 = (0, width, 0, height) if zoom is None else zoom
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        msg = f"zoom={zoom!r} must be inside of the image of {width} by {height} pixels."
        raise ValueError(msg)
    if not 0 < pixel_scale_arcsec <= _COARSEST_ARCSEC:
        msg = f"pixel_scale_arcsec={pixel_scale_arcsec!r} must be at most {_COARSEST_ARCSEC}."
        raise ValueError(msg)
    place = bricks.get_brick(sky.WHOLE_BRICK)
    centre = (width - 1) / 2 - x0, (height - 1) / 2 - y0
    grid = TangentGrid(place.ra_deg, place.dec_deg, *centre, pixel_scale_arcsec / 3600)
    scene = BrickScene("dr10", "south", sky.WHOLE_BRICK)
    scene.grid, scene.shape = grid, (y1 - y0, x1 - x0)
    scene.windows = strips(scene.shape)
    root = Path(folder).absolute()
    for path, write in scene_files(scene, tuple(bands)):
        write_whole(root / path, write)
    for make in (partial(bricks_file, "dr10"), partial(region_file, "dr10", "south")):
        for path, write in make():
            write_whole(root / path, write)
    return root
