"""Axes of matplotlib, which is imported here and nowhere else before it is needed."""

from ...exceptions import OptionalDependencyError

__all__ = ["new_axes", "new_figure"]


def new_figure(*size):
    """Return a new figure.

    Parameters
    ----------
    *size : float
        Width and height in inches; matplotlib's own by default.

    Returns
    -------
    `~matplotlib.figure.Figure`

    Raises
    ------
    OptionalDependencyError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        msg = "A picture needs matplotlib: install astroquery_lis[plot]."
        raise OptionalDependencyError(msg, cause=error) from error
    return pyplot.figure(figsize=size or None, layout="constrained")


def new_axes():
    """Return the axes of a new figure.

    Returns
    -------
    `~matplotlib.axes.Axes`
    """
    return new_figure().add_subplot()
