"""Values of an image between its pixels."""

import numpy as np

__all__ = ["lanczos3", "nearest"]

_TAPS = np.arange(-2, 4)


def _weights(fraction):
    """Return Lanczos-3 weights of the six pixels round a point, shape (6, n), normalised to 1."""
    distance = _TAPS[:, None] - fraction
    weights = np.sinc(distance) * np.sinc(distance / 3)
    return weights / weights.sum(axis=0)


def lanczos3(image, y, x):
    """Interpolate an image with the Lanczos-3 kernel."""
    ny, nx = image.shape
    first_y, first_x = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    weight_y, weight_x = _weights(y - first_y), _weights(x - first_x)
    columns = [np.clip(first_x + tap, 0, nx - 1) for tap in _TAPS]
    total = np.zeros(len(y))
    for tap, weight in zip(_TAPS, weight_y, strict=True):
        row = np.clip(first_y + tap, 0, ny - 1)
        along = sum(w * image[row, column] for w, column in zip(weight_x, columns, strict=True))
        total += weight * along
    return total.astype(np.float32)


def nearest(image, y, x):
    """Return the pixel nearest to each point."""
    ny, nx = image.shape
    row = np.clip(np.rint(y).astype(np.intp), 0, ny - 1)
    column = np.clip(np.rint(x).astype(np.intp), 0, nx - 1)
    return image[row, column]
