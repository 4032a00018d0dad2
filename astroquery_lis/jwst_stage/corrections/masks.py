"""Where the sources are, and what the sky is between them: numpy arrays in and out.

Pixels without a value are NaN; ``ignore`` is true where a pixel does not count.
"""

import numpy as np

__all__ = ["clipped", "smooth_background", "source_mask"]

_TO_SIGMA = 1.4826
_SEEN_PIX = 1.2
_ENOUGH = 200_000
_CERTAIN = 5.0
_MOST = 0.5
_FACTORS = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)


def clipped(values, *, sigma=3.0, iterations=10):
    """Return median and scatter of values, without those far off.

    Parameters
    ----------
    values : `~numpy.ndarray`
        Any shape; what is not finite does not count.
    sigma : float, optional
        Where it is cut, in units of the scatter.
    iterations : int, optional
        At most.

    Returns
    -------
    median, scatter : float
        The scatter is that of a normal distribution with the same median absolute deviation; both
        NaN where there are no values.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not values.size:
        return np.nan, np.nan
    for _ in range(iterations):
        median = np.median(values)
        scatter = _TO_SIGMA * np.median(np.abs(values - median))
        kept = values[np.abs(values - median) <= sigma * scatter]
        if scatter == 0 or kept.size == values.size:
            break
        values = kept
    return float(median), float(scatter)


def source_mask(data, ignore, *, sigma=2.5, grow_pix=3):
    """Return where there is more light than the sky and its noise explain.

    Parameters
    ----------
    data : `~numpy.ndarray`
        Image, shape (ny, nx).
    ignore : `~numpy.ndarray` of bool
        Pixels that do not count.
    sigma : float, optional
        Threshold in units of the noise, in the smoothed image.
    grow_pix : int, optional
        By how many pixels the mask is made larger in all directions.

    Returns
    -------
    `~numpy.ndarray` of bool
        Shape (ny, nx).  Where it would be more than half of the image the threshold is raised,
        since that much is no noise of the sky.
    """
    from scipy import ndimage

    good = ~ignore & np.isfinite(data)
    level, noise = clipped(_some(data[good]))
    if not np.isfinite(level):
        return np.zeros(data.shape, bool)
    # Smoothed by itself, a single bad pixel that is in no list would look like a source.
    limit = level + 50 * noise if noise > 0 else np.inf
    filled = np.where(good, np.minimum(data, limit) - level, 0.0)
    weight = ndimage.gaussian_filter(good.astype(float), _SEEN_PIX)
    smooth = ndimage.gaussian_filter(filled, _SEEN_PIX) / np.maximum(weight, 1e-3)
    middle, scatter = clipped(_some(smooth[good]))
    y, x = np.mgrid[-grow_pix : grow_pix + 1, -grow_pix : grow_pix + 1]
    disc = x**2 + y**2 <= grow_pix**2 + 0.5
    for factor in _FACTORS:
        found = good & (smooth > middle + factor * sigma * scatter) & (scatter > 0)
        found |= good & (data > level + max(factor * sigma, _CERTAIN) * noise) & (noise > 0)
        if grow_pix and found.any():
            found = ndimage.binary_dilation(found, disc)
        if found[good].mean() <= _MOST:
            break
    return found


def _some(values):
    """Return enough values to know their scatter; an odd step, so as not to follow columns."""
    return values[:: (values.size // _ENOUGH) | 1]


def smooth_background(data, ignore, box_pix):
    """Return the sky as it changes over boxes.

    Parameters
    ----------
    data : `~numpy.ndarray`
        Image, shape (ny, nx).
    ignore : `~numpy.ndarray` of bool
        Pixels that do not count.
    box_pix : int
        Side of a box in pixels.

    Returns
    -------
    `~numpy.ndarray`
        Shape (ny, nx): medians of the boxes, linear between their centres; finite everywhere, 0
        where there is nothing to go by.
    """
    from scipy import ndimage

    values = np.where(ignore, np.nan, data)
    ny, nx = data.shape
    rows, columns = (max(1, round(n / box_pix)) for n in (ny, nx))
    grid = np.full((rows, columns), np.nan)
    y_edges = np.linspace(0, ny, rows + 1).astype(int)
    x_edges = np.linspace(0, nx, columns + 1).astype(int)
    for row in range(rows):
        for column in range(columns):
            box = values[y_edges[row] : y_edges[row + 1], x_edges[column] : x_edges[column + 1]]
            grid[row, column] = clipped(box)[0]
    known = np.isfinite(grid)
    if not known.any():
        return np.zeros(data.shape)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    grid = grid[tuple(nearest)]
    y = np.interp(np.arange(ny), (y_edges[1:] + y_edges[:-1] - 1) / 2, np.arange(rows))
    x = np.interp(np.arange(nx), (x_edges[1:] + x_edges[:-1] - 1) / 2, np.arange(columns))
    return ndimage.map_coordinates(grid, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest")
