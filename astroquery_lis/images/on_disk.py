"""Boxes of images whose files are on disk whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..exceptions import NotFoundError, UnexpectedContentError
from ..io.whole_files import flaw_of
from .headers import Cards
from .tiles import DECODE_ERRORS, KnownImage, OpenImage, OpenImages, open_whole

if TYPE_CHECKING:
    from pathlib import Path

    from .reader import SectionRequest
    from .strips import SharedFile

BoxRead: TypeAlias = tuple[np.ndarray, str, Cards]
"""Pixels, where they are from, and cards."""


def read_on_disk(
    images: OpenImages,
    path: str | Path,
    url: str,
    request: SectionRequest,
    shared: SharedFile | None = None,
) -> BoxRead:
    """Read a box of a file that is here; images are held open."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"{path} does not exist."
        raise NotFoundError(msg, url=str(path), cause=error) from error
    stamp = (status.st_mtime_ns, status.st_size)
    key = str(path), request.hdu
    known = images.get(key, stamp)
    try:
        if known is None:
            known = _opened(path, url, request.hdu, stamp)
            images.put(key, known)
        with known.lock:
            pixels = known.read(request.box, request.source, shared)
            return pixels, url, known.layout(request.source).cards
    except DECODE_ERRORS as error:
        images.drop(key)
        msg = f"{path} cannot be read as a FITS image: {error}."
        raise UnexpectedContentError(msg, url=str(path), cause=error) from error


def _opened(path: str | Path, url: str, hdu: int | None, stamp: tuple[int, int]) -> KnownImage:
    """Open the first image of a file, or that of a later HDU, of which all has to be sound."""
    if hdu is None:
        return open_whole(path, stamp, stamp[1])
    flaw = flaw_of(path)
    if flaw:
        raise UnexpectedContentError(flaw, url=str(path))
    return KnownImage(OpenImage(path, hdu=hdu), stamp, None, url)
