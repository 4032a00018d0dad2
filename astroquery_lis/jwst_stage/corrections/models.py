"""What the corrections do with a data model of `stdatamodels`: planes, flags, lines of history."""

import warnings

import numpy as np

from ...exceptions import TaskError

__all__ = [
    "DO_NOT_USE",
    "NO_FLAT_FIELD",
    "REFERENCE_PIXEL",
    "amplifier_bounds",
    "history_of",
    "is_fast_along_x",
    "note",
    "planes",
    "reference_image",
    "unit_of",
]

DO_NOT_USE = 1
NO_FLAT_FIELD = 1 << 18
REFERENCE_PIXEL = 1 << 31

_FULL_PIX = 2048
_AMPLIFIERS = 4


def note(model, text):
    """Add a line to the HISTORY of a model.

    Parameters
    ----------
    model : datamodel
        The model.
    text : str
        What was done; what is longer than a card is cut off.
    """
    model.add_history_entry(text[:72])


def history_of(model):
    """Return the lines of the HISTORY of a model.

    Parameters
    ----------
    model : datamodel
        The model.

    Returns
    -------
    list of str
    """
    # There is a way to add entries that is to stay, and none yet to read them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return [str(entry["description"]) for entry in model.history]


def planes(model):
    """Return images and what to ignore in them, one pair per integration.

    Parameters
    ----------
    model : datamodel
        With ``data`` and ``dq`` of shape (ny, nx) or (nints, ny, nx).

    Yields
    ------
    data : `~numpy.ndarray`
        A view, shape (ny, nx).
    ignore : `~numpy.ndarray` of bool
        Bad pixels, reference pixels and those without a value.

    Raises
    ------
    TaskError
        If the model is not of images.
    """
    data, dq = model.data, model.dq
    if data is None or data.ndim not in (2, 3) or dq is None or dq.shape != data.shape:
        shape = None if data is None else data.shape
        msg = f"{type(model).__name__} with data of shape {shape} is not of images."
        raise TaskError(msg)
    if data.ndim == 2:
        data, dq = data[np.newaxis], dq[np.newaxis]
    bad = DO_NOT_USE | REFERENCE_PIXEL
    for image, flags in zip(data, dq, strict=True):
        yield image, ((flags & np.uint32(bad)) != 0) | ~np.isfinite(image)


def is_fast_along_x(model):
    """Tell along which axis pixels are read one after the other.

    Parameters
    ----------
    model : datamodel
        With ``meta.subarray.fastaxis``.

    Returns
    -------
    bool
        Whether they are along rows (numpy's last axis).

    Raises
    ------
    TaskError
        If the model does not say.
    """
    axis = model.meta.subarray.fastaxis
    if axis is None or abs(axis) not in (1, 2):
        msg = f"FASTAXIS = {axis!r} does not tell the direction; give 'rows' or 'columns'."
        raise TaskError(msg)
    return abs(axis) == 1


def amplifier_bounds(model, along_x):
    """Return where the amplifiers end along the fast axis.

    Parameters
    ----------
    model : datamodel
        With ``meta.subarray`` and ``meta.exposure.noutputs``.
    along_x : bool
        Whether the fast axis is x.

    Returns
    -------
    list of int
        First pixel of each amplifier and, at the end, the number of pixels.
    """
    subarray = model.meta.subarray
    size = model.data.shape[-1 if along_x else -2]
    start = (subarray.xstart if along_x else subarray.ystart) or 1
    if (model.meta.exposure.noutputs or 1) < _AMPLIFIERS:
        return [0, size]
    width = _FULL_PIX // _AMPLIFIERS
    inner = [n * width - (start - 1) for n in range(1, _AMPLIFIERS)]
    return [0, *(edge for edge in inner if 0 < edge < size), size]


def unit_of(model):
    """Return the unit of the pixels, for a line of history.

    Parameters
    ----------
    model : datamodel
        With ``meta.bunit_data``.

    Returns
    -------
    str
    """
    return model.meta.bunit_data or "DN/s"


def reference_image(path, model, extensions=("SCI",)):
    """Return images of a FITS file, cut to the subarray of a model.

    Parameters
    ----------
    path : path-like
        The file: an image in ``SCI``, or else in the first extension that has one.
    model : datamodel
        What it is for.
    extensions : sequence of str, optional
        Those wanted.

    Returns
    -------
    list of (`~numpy.ndarray` or None)
        Shape (ny, nx) each; `None` for an extension, other than the first, that is not there.

    Raises
    ------
    TaskError
        If there is no image of the shape of the model, nor one of the full detector.
    """
    from astropy.io import fits

    shape = model.data.shape[-2:]
    with fits.open(path) as hdul:
        found = []
        for name in extensions:
            hdu = next((h for h in hdul if h.name == name), None)
            if hdu is None and not found:
                images = [h for h in hdul if h.is_image and h.header.get("NAXIS") == 2]
                hdu = images[0] if images else None
                if hdu is None:
                    msg = f"{path} has no image of two dimensions."
                    raise TaskError(msg)
            found.append(None if hdu is None else _cut(path, np.array(hdu.data), model, shape))
    return found


def _cut(path, image, model, shape):
    if image.shape == shape:
        return image
    x, y = (model.meta.subarray.xstart or 0), (model.meta.subarray.ystart or 0)
    if image.shape == (_FULL_PIX, _FULL_PIX) and x > 0 and y > 0:
        part = image[y - 1 : y - 1 + shape[0], x - 1 : x - 1 + shape[1]]
        if part.shape == shape:
            return part
    msg = (
        f"{path} is an image of {image.shape} pixels; the exposure has {shape}, and the full "
        f"detector {(_FULL_PIX, _FULL_PIX)}."
    )
    raise TaskError(msg)
