"""Cutouts on axes of sky coordinates, with masks, sources and a scale bar."""

from __future__ import annotations

import warnings
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.stats import sigma_clipped_stats
from astropy.wcs import WCS

from .._packages import import_optional
from ..exceptions import InvalidRequestError, refuse
from ..images.cutout_hdus import (
    as_cutout,
    flux_planes,
    mask_release,
    pixel_side_arcsec,
    side_arcsec,
)
from ..survey.bitmasks import maskbits, maskbits_value
from .page import Markup
from .rgb import colours, flips
from .sheet import column_degrees

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astropy.io import fits
    from astropy.table import Table
    from astropy.visualization import ImageNormalize
    from astropy.visualization.wcsaxes import WCSAxes
    from matplotlib.artist import Artist

    from .._typing import Bands, FilePath

Colour = tuple[float, float, float]
# Names of bits, and the colour of their pixels.
Group = tuple[tuple[str, ...], Colour]

MASK_GROUPS: dict[str, Group] = {
    "bright star": (("BRIGHT", "MEDIUM"), (0.95, 0.75, 0.1)),
    "saturated": (("SATUR_G", "SATUR_R", "SATUR_I", "SATUR_Z"), (0.95, 0.2, 0.2)),
    "bad in all exposures": (("ALLMASK_G", "ALLMASK_R", "ALLMASK_I", "ALLMASK_Z"), (0.9, 0.3, 0.9)),
    "large galaxy": (("GALAXY",), (0.2, 0.8, 0.9)),
    "cluster": (("CLUSTER",), (0.3, 0.9, 0.4)),
}
"""Bits that are drawn if none are named, and their colours."""

_MASK_ALPHA = 0.35

MARKERS = {
    "PSF": ("+", "#ffd24d"),
    "REX": ("o", "#7fd4ff"),
    "EXP": ("s", "#7dff9b"),
    "DEV": ("D", "#ff8f7a"),
    "SER": ("^", "#e79bff"),
    "COMP": ("p", "#ffb0d0"),
    "SIMP": ("v", "#a0a8ff"),
    "DUP": ("x", "#c0c0c0"),
}
"""Marker and colour of each type of source of the Tractor."""

_LEGEND: dict[str, Any] = {"loc": "upper right", "fontsize": "small", "labelcolor": "white"}
_LEGEND |= {"facecolor": "black", "edgecolor": "none", "framealpha": 0.6}
_OTHER_MARKER = (".", "#ffffff")

_NICE_ARCSEC = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800)
_BAR_SHARE = 0.25


def plot(
    hdul: fits.HDUList | FilePath,
    band: Bands | None = None,
    *,
    ax: WCSAxes | None = None,
    product: str | None = None,
    catalog: Table | None = None,
    mask: bool | str | Sequence[str] = True,
    scale_bar: bool = True,
    legend: bool = True,
    stretch: str = "survey",
    brightness: float = 1.0,
) -> WCSAxes:
    """Show a cutout on axes of right ascension and declination.

    Parameters
    ----------
    hdul : `~astropy.io.fits.HDUList`, str or path-like
        As for `~astroquery_lis.pictures.rgb`.
    band : str or sequence of str, optional
        One band for a grey picture in its own units, or several for a colour picture; by default
        the colour picture of all.
    ax : `~astropy.visualization.wcsaxes.WCSAxes`, optional
        Axes made with the WCS of the cutout as their projection; by default those of a new figure.
    product : {'image', 'model', 'blobmodel', 'resid'}, optional
        By default the first of these that the cutout has.
    catalog : `~astropy.table.Table`, optional
        Sources to mark: columns ``ra`` and ``dec``, in degrees where they have no unit, and
        ``type``, if there is one, for the marker.
    mask : bool or sequence of str, optional
        Names of the bits of ``MASKBITS`` to shade.  `True` takes bright stars, saturation, pixels
        that are bad in every exposure, large galaxies and clusters, if the cutout has a mask.
    scale_bar : bool, optional
        Whether to draw a bar of a round angle.
    legend : bool, optional
        Whether to say what the shades and markers mean.
    stretch, brightness
        As for `~astroquery_lis.pictures.rgb`.

    Returns
    -------
    `~astropy.visualization.wcsaxes.WCSAxes`

    Raises
    ------
    InvalidRequestError
        If an argument is wrong or names what the cutout does not have.
    OptionalDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey, sandbox
    >>> from astroquery_lis import pictures
    >>> with sandbox.serve() as sky:
    ...     hdul = LegacySurvey.get_cutout(sky.positions['field'], 32, bands='grz')
    >>> axes = pictures.plot(hdul)  # doctest: +SKIP
    >>> axes.figure.savefig('field.png')  # doctest: +SKIP
    """
    import_optional("matplotlib", "plot", "A plot")
    from matplotlib import pyplot

    hdul = as_cutout(hdul)
    hdus = flux_planes(hdul, band, product)
    first = next(iter(hdus.values()))
    wcs = _celestial(first)
    shades = _shades(hdul, mask, first.shape)
    if ax is None:
        ax = pyplot.figure(layout="constrained").add_subplot(projection=wcs)
    elif not hasattr(ax, "wcs"):
        refuse("ax", ax, "must be a WCSAxes: add_subplot(projection=WCS(header)).")
    if band is not None and len(hdus) == 1:
        ax.imshow(first.data, cmap="gray", norm=_norm(first.data, brightness), origin="lower")
    else:
        picture, _ = colours(
            hdul, bands=band, product=product, stretch=stretch, brightness=brightness
        )
        ax.imshow(picture, origin="lower")
    handles = [_draw_shade(ax, *shade) for shade in shades]
    handles += [] if catalog is None else _draw_sources(ax, wcs, first.shape, catalog)
    if scale_bar:
        _draw_scale_bar(ax, first)
    if legend and handles:
        ax.legend(handles=handles, **_LEGEND)
    ax.set_xlim(-0.5, first.shape[1] - 0.5)
    ax.set_ylim(-0.5, first.shape[0] - 0.5)
    ax.coords[0].set_axislabel("RA")
    ax.coords[1].set_axislabel("Dec")
    return ax


def _celestial(hdu: fits.ImageHDU) -> WCS:
    wcs = WCS(hdu.header)
    if not wcs.has_celestial:
        msg = f"hdul: {hdu.name} has no WCS."
        raise InvalidRequestError(msg, parameter="hdul", value=hdu.name)
    return wcs.celestial


def _norm(data: np.ndarray, brightness: float) -> ImageNormalize:
    # It imports matplotlib.
    from astropy.visualization import AsinhStretch, ImageNormalize

    finite = data[np.isfinite(data)]
    if not finite.size:
        return ImageNormalize(vmin=0, vmax=1)
    with warnings.catch_warnings():
        # Of a plane that is constant, astropy says that nothing was clipped.
        warnings.simplefilter("ignore")
        _, median, noise = sigma_clipped_stats(finite, maxiters=5)
    noise = noise or max(np.ptp(finite) / 100, 1e-12)
    top = max(float(np.percentile(finite, 99.7)) - median, 10 * noise) / brightness
    vmin, vmax = median - 2 * noise, median + top
    return ImageNormalize(vmin=vmin, vmax=vmax, stretch=AsinhStretch(min(3 * noise / top, 1)))


def _shades(
    hdul: fits.HDUList, mask: bool | str | Sequence[str], shape: tuple[int, int]
) -> list[tuple[str, np.ndarray, Colour]]:
    """Return name, pixels and colour of each shade; empty ones are left out."""
    if mask is False or (mask is True and "MASKBITS" not in hdul):
        return []
    bits = _mask_plane(hdul, mask, shape)
    release = mask_release(hdul)
    bit_numbers = maskbits(release)
    groups = _named_groups(mask, release) if not isinstance(mask, bool) else MASK_GROUPS
    shades = []
    for name, (names, colour) in groups.items():
        value = sum(1 << bit_numbers[bit] for bit in names if bit in bit_numbers)
        pixels = (bits & value) != 0
        if pixels.any():
            shades.append((name, pixels, colour))
    return shades


def _mask_plane(
    hdul: fits.HDUList, mask: bool | str | Sequence[str], shape: tuple[int, int]
) -> np.ndarray:
    """Return the bits of every pixel of an image."""
    if "MASKBITS" not in hdul:
        must = ": the cutout has no MASKBITS; ask for products=('image', 'maskbits')."
        refuse("mask", mask, must)
    bits = hdul["MASKBITS"].data
    if bits.shape != shape:
        refuse("mask", mask, ": MASKBITS is not on the grid of the image.")
    return bits


def _named_groups(names: str | Sequence[str], release: str) -> dict[str, Group]:
    """Return a group for each bit that is named, in the colours of those by default."""
    names = [names] if isinstance(names, str) else list(names)
    maskbits_value(names, release)
    colours_in_turn = cycle(colour for _, colour in MASK_GROUPS.values())
    return {name: ((name.upper(),), next(colours_in_turn)) for name in names}


def _draw_shade(ax: WCSAxes, name: str, pixels: np.ndarray, colour: Colour) -> Artist:
    from matplotlib.patches import Patch

    layer = np.zeros((*pixels.shape, 4), np.float32)
    layer[pixels] = (*colour, _MASK_ALPHA)
    ax.imshow(layer, origin="lower")
    return Patch(color=colour, alpha=0.7, label=name)


def _draw_sources(ax: WCSAxes, wcs: WCS, shape: tuple[int, int], catalog: Table) -> list[Artist]:
    """Mark the sources within the image and return the handles, most frequent type first."""
    names = {name.lower(): name for name in catalog.colnames}
    missing = [name for name in ("ra", "dec") if name not in names]
    if missing:
        msg = f"catalog has no column {', '.join(missing)}; it has {', '.join(catalog.colnames)}."
        raise InvalidRequestError(msg, parameter="catalog", value=catalog.colnames)
    ra, dec = (column_degrees(catalog, names[name], "catalog") for name in ("ra", "dec"))
    kinds = _kinds(catalog, names.get("type"))
    x, y = wcs.world_to_pixel_values(ra, dec)
    inside = (x >= -0.5) & (x < shape[1] - 0.5) & (y >= -0.5) & (y < shape[0] - 0.5)
    types, counts = np.unique(kinds[inside], return_counts=True)
    handles = []
    for kind, count in sorted(zip(types, counts, strict=True), key=lambda pair: -pair[1]):
        marker, colour = MARKERS.get(kind, _OTHER_MARKER)
        marked = inside & (kinds == kind)
        face = {} if marker in "+x." else {"markerfacecolor": "none"}
        handles += ax.plot(
            x[marked],
            y[marked],
            linestyle="none",
            marker=marker,
            color=colour,
            markersize=7,
            label=f"{kind or 'no type'} ({count})",
            **face,
        )
    return handles


def _kinds(catalog: Table, name: str | None) -> np.ndarray:
    """Return the type of every source, as a column of that name says."""
    if name is None:
        return np.full(len(catalog), "source")
    column = np.ma.filled(np.ma.asarray(catalog[name]).astype(str), "")
    return np.char.upper(np.char.strip(column))


def bar_arcsec(width_arcsec: float) -> float:
    """Return the round length of the scale bar of an image of that width."""
    fitting = [length for length in _NICE_ARCSEC if length <= width_arcsec * _BAR_SHARE]
    return float(fitting[-1]) if fitting else float(f"{width_arcsec * _BAR_SHARE:.1g}")


def bar_text(length_arcsec: float) -> str:
    """Return what stands at a scale bar."""
    return f"{length_arcsec / 60:g}′" if length_arcsec >= 60 else f"{length_arcsec:g}″"


def _draw_scale_bar(ax: WCSAxes, hdu: fits.ImageHDU) -> None:
    from matplotlib.patheffects import withStroke

    side = pixel_side_arcsec(hdu.header)
    ny, nx = hdu.shape
    length = bar_arcsec(nx * side)
    x, y = 0.05 * nx, 0.05 * ny
    outline = [withStroke(linewidth=4, foreground="black")]
    ax.plot([x, x + length / side], [y, y], color="white", linewidth=2, path_effects=outline)
    ax.text(
        x + length / side / 2,
        y + 0.02 * ny,
        bar_text(length),
        color="white",
        ha="center",
        va="bottom",
        path_effects=outline,
    )


_LETTERS_ACROSS = 30


def sky_marks(shape: tuple[int, int], matrix: np.ndarray) -> Markup:
    """Return SVG over a picture of `north_up`: arrows to north and east, a bar of a round angle."""
    ny, nx = shape
    letter = max(ny, nx) / _LETTERS_ACROSS
    rows, columns = flips(matrix)
    # Its columns are the ways to the east and to the north, in steps to the right and down.
    ways = np.diag([columns, rows]) @ np.linalg.inv(matrix)
    x, y = 3.6 * letter, ny - 3.6 * letter
    parts = []
    for name, way in (("E", ways[:, 0]), ("N", ways[:, 1])):
        right, down = 2.2 * letter * way / np.hypot(*way)
        parts.append(_mark_line(f"M{x:.1f} {y:.1f}l{right:.1f} {down:.1f}"))
        parts.append(_mark_text(name, x + 1.4 * right, y + 1.4 * down, letter))
    length_arcsec = bar_arcsec(nx * side_arcsec(matrix))
    length = length_arcsec / side_arcsec(matrix)
    x, y = nx - 1.2 * letter - length, ny - 1.2 * letter
    parts.append(_mark_line(f"M{x:.1f} {y:.1f}h{length:.1f}"))
    parts.append(_mark_text(bar_text(length_arcsec), x + length / 2, y - letter, letter))
    return Markup(f'<g class="sky">{"".join(parts)}</g>')


def _mark_line(way: str) -> str:
    return f'<path class="edge" d="{way}"/><path d="{way}"/>'


def _mark_text(text: str, x: float, y: float, size: float) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" style="font-size:{size:.1f}px" text-anchor="middle" '
        f'dominant-baseline="central">{text}</text>'
    )
