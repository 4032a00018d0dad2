"""Questions to a reader of brick images, and its answers."""

from dataclasses import dataclass

import numpy as np

from ..exceptions import CacheError
from ..io.places import Answer

__all__ = ["Section", "SectionRequest"]


@dataclass(frozen=True)
class SectionRequest:
    """A box of one image file."""

    paths: tuple
    box: tuple
    source: tuple = ()
    hdu: int | None = None


@dataclass(frozen=True)
class Section:
    """The answer to a `SectionRequest`."""

    pixels: np.ndarray | None
    url: str = ""
    mirror: str = ""
    answer: Answer | None = None
    cache_error: CacheError | None = None
