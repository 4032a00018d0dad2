"""The same exposure through the chain, side by side."""

import math
import os

from ...exceptions import InvalidRequestError
from ._axes import new_figure
from .planes import grey, read_plane

__all__ = ["plot_stages"]

_MOST = 12
_COLUMNS = 4


def plot_stages(files, *, integration=0):
    """Show products side by side, such as uncal, rate, cal and i2d.

    Parameters
    ----------
    files : sequence of path-like
        Up to 12 products, in the order of the panels.
    integration : int, optional
        Which one, from 0, of products that have several.

    Returns
    -------
    `~matplotlib.figure.Figure`
        A panel each, with levels of its own: grey by arcsinh of the noise, middle grey where there
        is no value.  Of groups the last less the first is shown.

    Raises
    ------
    InvalidRequestError
        If there are no files or too many, or one has no image.
    OptionalDependencyError
        If matplotlib is not installed.
    """
    files = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    if not 1 <= len(files) <= _MOST:
        msg = f"files: {len(files)} were given; 1 to {_MOST} can be shown."
        raise InvalidRequestError(msg, parameter="files", value=files)
    planes = [read_plane(path, integration=integration) for path in files]
    columns = min(_COLUMNS, len(planes))
    rows = math.ceil(len(planes) / columns)
    figure = new_figure(3.2 * columns, 3.5 * rows)
    for number, plane in enumerate(planes, 1):
        ax = figure.add_subplot(rows, columns, number)
        levels = grey(plane.data, dq=plane.dq)
        ax.imshow(levels, origin="lower", cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ny, nx = plane.data.shape
        unit = f", {plane.unit}" if plane.unit else ""
        ax.set_title(f"{plane.suffix}{unit}\n{nx} x {ny} pixels", fontsize="small")
        ax.tick_params(labelsize="x-small")
    figure.suptitle(planes[0].name, fontsize="small")
    return figure
