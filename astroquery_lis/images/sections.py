"""Questions to a reader of brick images, and its answers."""

from dataclasses import dataclass

import numpy as np

from ..exceptions import CacheError

__all__ = ["Section", "SectionRequest"]


@dataclass(frozen=True)
class SectionRequest:
    """A box of one image file.

    Attributes
    ----------
    paths : tuple of str
        Names that the file may have, relative to the survey's root, the likeliest first.
    box : `~astroquery_lis.survey.tangent.Box`
        Pixels.
    source : tuple
        What the file is: its `~astroquery_lis.survey.releases.Tree`, brick, product and band.
    hdu : int or None
        Which HDU; `None` for the first that has an image.  Others are read from the whole file.
    """

    paths: tuple
    box: tuple
    source: tuple = ()
    hdu: int | None = None


@dataclass(frozen=True)
class Section:
    """The answer to a `SectionRequest`.

    Attributes
    ----------
    pixels : `~numpy.ndarray` or None
        `None` if no mirror has the file.
    url : str
        Where it came from: a URL or a local path.
    mirror : str
        Name of the mirror.
    failures : tuple of tuple
        ``(mirror, error)`` of the mirrors that failed before.
    cache_error : CacheError or None
        Why nothing could be kept.
    """

    pixels: np.ndarray | None
    url: str = ""
    mirror: str = ""
    failures: tuple = ()
    cache_error: CacheError | None = None
