"""A page per field: JWST and Legacy side by side, who matches whom, offsets and colours."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from ..._packages import import_optional
from ...client.inputs import image_wcs
from ...exceptions import InvalidRequestError, OptionalDependencyError
from ...images.cutout_hdus import sky_matrix
from ...pictures import page
from ...pictures.plot import sky_marks
from ...pictures.rgb import flips, rgb
from ...survey.photometry import plain_numbers
from ...survey.request import as_count
from ..tasks import absolute
from .field_sources import texts
from .fields import read_headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astropy.table import Column
    from astropy.wcs import WCS
    from matplotlib.figure import Figure

    from ..._typing import FilePath, Table
    from .matching import CatalogMatch

TABLE_ROWS = 300
_COLOUR_BANDS = ("g", "r", "i", "z")
_SHOWN_BANDS = (*_COLOUR_BANDS, "w1", "w2")
_KINDS = {"galaxies": ("s", "#3d7fd0"), "stars with a proper motion": ("o", "#c8950a")}


# ---- the picture of the mosaics -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class JwstPicture:
    """Mosaics on one grid, small enough for a page: north up as far as flips bring that about.

    `wcs` is the grid before the flips, `filters` go from blue to red.
    """

    image: np.ndarray
    wcs: WCS
    filters: list[str]

    @property
    def matrix(self) -> np.ndarray:
        """How the pixels of the grid lie on the sky."""
        return sky_matrix(self.wcs.to_header())

    def place(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return positions as pixels from the upper left corner; NaN outside of the picture."""
        ny, nx = self.wcs.array_shape
        x, y = self.wcs.world_to_pixel_values(np.asarray(ra_deg), np.asarray(dec_deg))
        x, y = np.asarray(x) + 0.5, np.asarray(y) + 0.5
        rows, columns = flips(self.matrix)
        x = nx - x if columns < 0 else x
        y = ny - y if rows < 0 else y
        outside = (x < 0) | (x > nx) | (y < 0) | (y > ny)
        return np.where(outside, np.nan, x), np.where(outside, np.nan, y)


def jwst_picture(
    mosaics: FilePath | Sequence[FilePath], *, size: int = 900, brightness: float = 1.0
) -> JwstPicture:
    """Return a picture of ``_i2d.fits`` files on one grid: one in grey, several in colours.

    Mosaics larger than `size` are averaged over blocks of pixels.
    """
    if isinstance(mosaics, (str, os.PathLike)):
        mosaics = [mosaics]
    paths = [Path(absolute(mosaic)) for mosaic in mosaics]
    if not paths:
        msg = "mosaics: there is none."
        raise InvalidRequestError(msg, parameter="mosaics", value=mosaics)
    size = as_count("size", size, 16, "pixels")
    wcs = image_wcs(paths[0])
    ny, nx = wcs.array_shape
    factor = max(1, -(-max(ny, nx) // size))
    coarse = wcs[: ny // factor * factor : factor, : nx // factor * factor : factor]
    coarse.array_shape = ny // factor, nx // factor
    for path in paths:
        if not _same_grid(wcs, image_wcs(path)):
            msg = f"{path} is not on the grid of {paths[0]}: plan with common_grid=True."
            raise InvalidRequestError(msg, parameter="mosaics", value=str(path))
    planes = [_plane(path, factor, coarse) for path in paths]
    planes.sort(key=lambda hdu: _wavelength(hdu.header["BAND"]))
    filters = [hdu.header["BAND"] for hdu in planes]
    hdul = fits.HDUList([fits.PrimaryHDU(), *planes])
    return JwstPicture(rgb(hdul, bands=filters, brightness=brightness), coarse, filters)


def _plane(path: Path, factor: int, coarse: WCS) -> fits.ImageHDU:
    """Return a mosaic as the plane of a cutout, each pixel the mean of a block."""
    name = str(read_headers(path).get("FILTER", path.name)).strip() or path.name
    hdu = fits.ImageHDU(_block_mean(path, factor), coarse.to_header(), name=f"IMAGE_{name}")
    hdu.header["BAND"], hdu.header["BUNIT"] = name, "MJy/sr"
    return hdu


def _same_grid(wcs: WCS, other: WCS) -> bool:
    if other.array_shape != wcs.array_shape:
        return False
    corners = np.array([[0.0, 0.0], [wcs.array_shape[1] - 1.0, wcs.array_shape[0] - 1.0]])
    apart = other.world_to_pixel_values(*wcs.pixel_to_world_values(*corners.T))
    return bool(np.allclose(np.stack(apart), corners.T, atol=0.1))


def _wavelength(filter_name: str) -> int:
    return int("".join(filter(str.isdigit, filter_name[1:5])) or 0)


def _block_mean(path: Path, factor: int) -> np.ndarray:
    """Return the SCI image averaged over blocks; pixels without data do not count."""
    with fits.open(path, memmap=True) as hdul:
        data = hdul["SCI"].data
        ny, nx = data.shape[0] // factor, data.shape[1] // factor
        result = np.empty((ny, nx), np.float32)
        # Row by row of the result, so that no second copy of a large mosaic is in memory.
        for row in range(ny):
            block = data[row * factor : (row + 1) * factor, : nx * factor]
            block = np.ma.masked_invalid(block.reshape(factor, nx, factor).astype(np.float32))
            result[row] = block.mean(axis=(0, 2)).filled(np.nan)
    return result


# ---- the page -----------------------------------------------------------------------------------


def page_of(
    match: CatalogMatch, picture: JwstPicture, legacy: fits.HDUList | None, *, title: str
) -> str:
    """Return the page of a field; `legacy` is on the grid of the picture, `None` off the survey."""
    matches, filter_name = match.matches, _filter_name(match, picture)
    name = f"JWST {', '.join(picture.filters)}"
    views = [_view(name, picture.image, picture, match, "jwst")]
    if legacy is not None:
        name = f"Legacy Survey {match.meta.get('release', '')}".strip()
        views.append(_view(name, rgb(legacy), picture, match, "legacy"))
    boxes = "".join(
        f'<label><input type="checkbox" checked value="{key}"><span class="key {key}"></span>'
        f"{text} ({number})</label>"
        for key, text, number in (
            ("match", "Matched", len(matches)),
            ("jwst-only", "JWST alone", len(match.jwst_only)),
            ("legacy-only", "Tractor alone", len(match.legacy_only)),
        )
    )
    lines = {
        "Offset, JWST minus Legacy": match.offset,
        "Of the stars": match.star_offset if match.star_offset.number else "no stars",
        "Epoch": match.meta.get("epoch") or "not known",
        "Radius": f"{match.meta.get('radius_arcsec', np.nan):g} arcsec about the common offset",
    }
    plots = [
        page.section("Offsets", offset_figure(match)),
        page.section("Colours", _colour_figure(match, filter_name)),
    ]
    body = (
        f'<div id="tools" role="group" aria-label="Marks" hidden>{boxes}</div>'
        f'<div class="pair">{"".join(views)}</div><div class="pair">{"".join(plots)}</div>'
        f"{page.section('Facts', page.facts(lines))}{_pairs_table(matches, filter_name)}"
    )
    about = (
        f"{len(matches)} of {len(matches) + len(match.jwst_only)} JWST sources have a partner in "
        f"Tractor, {len(match.legacy_only)} Tractor sources in the mosaic have none. Both pictures "
        "are on the grid of the mosaic."
    )
    return page.html_page(title, body, about=about, script="field.js")


def _filter_name(match: CatalogMatch, picture: JwstPicture) -> str:
    single = picture.filters[0] if len(picture.filters) == 1 else "JWST"
    return match.meta.get("filter") or single


def _view(
    name: str, shown: np.ndarray, picture: JwstPicture, match: CatalogMatch, side: str
) -> page.Markup:
    """Return one of the two pictures with its marks."""
    alone, prefix = (match.jwst_only, "jwst_") if side == "jwst" else (match.legacy_only, "")
    pairs, lone = (
        picture.place(plain_numbers(rows[f"{prefix}ra"]), plain_numbers(rows[f"{prefix}dec"]))
        for rows in (match.matches, alone)
    )
    marks = _marks(match, picture, pairs, lone, f"{side}-only")
    shape = shown.shape[:2]
    marks += sky_marks(shape, picture.matrix)
    return page.section(
        name, page.marked(page.image(shown, name), shape, marks, f"Sources on {name}")
    )


Positions = tuple[np.ndarray, np.ndarray]


def _mark_size(picture: JwstPicture) -> float:
    return max(picture.image.shape[:2]) / 75


def _marks(
    match: CatalogMatch, picture: JwstPicture, pairs: Positions, alone: Positions, key: str
) -> str:
    """Return SVG marks; those of one pair have one number in both pictures."""
    size = _mark_size(picture)
    parts = []
    for number, (label, x, y) in enumerate(zip(match.matches["label"], *pairs, strict=True)):
        if np.isfinite(x):
            place = f'cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"'
            title = f"<title>{page.escape(label)}</title>"
            parts.append(f'<circle class="match" data-pair="{number}" {place}>{title}</circle>')
    title = f"<title>{key.partition('-')[0]} source without partner</title>"
    side = 1.8 * size
    for x, y in zip(*alone, strict=True):
        if np.isfinite(x):
            # A square for JWST, one on its corner for Tractor.
            turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if key == "legacy-only" else ""
            place = f'x="{x - side / 2:.1f}" y="{y - side / 2:.1f}"'
            box = f'{place} width="{side:.1f}" height="{side:.1f}"{turn}'
            parts.append(f'<rect class="{key}" {box}>{title}</rect>')
    return "".join(parts)


def offset_figure(match: CatalogMatch) -> page.Markup:
    """Return the differences of position of the pairs, with the common offset."""
    x, y = plain_numbers(match.matches["d_ra"]), plain_numbers(match.matches["d_dec"])
    offset = match.offset.d_ra.value, match.offset.d_dec.value
    return _scatter(
        (x, y),
        np.asarray(match.matches["carried"], bool),
        names=("dRA cos(Dec), JWST − Legacy, mas", "dDec, mas"),
        caption=f"Differences of position: {match.offset}",
        offset=offset if len(match.matches) else None,
    )


def _colour_figure(match: CatalogMatch, filter_name: str) -> page.Markup:
    matches = match.matches
    bands = [band for band in _COLOUR_BANDS if f"mag_{band}" in matches.colnames]
    bands = [band for band in bands if np.isfinite(plain_numbers(matches[f"mag_{band}"])).any()]
    if len(bands) < 2:
        return page.Markup('<p class="note">There are not two optical bands.</p>')
    red = bands[-1]
    blue = "r" if "r" in bands[:-1] else bands[-2]
    blue_mag, red_mag = plain_numbers(matches[f"mag_{blue}"]), plain_numbers(matches[f"mag_{red}"])
    return _scatter(
        (blue_mag - red_mag, red_mag - plain_numbers(matches["jwst_mag"])),
        np.asarray(matches["carried"], bool),
        names=(f"{blue} − {red} (AB)", f"{red} − {filter_name} (AB)"),
        caption=f"Colours {blue} − {red} and {red} − {filter_name} of the matched sources",
    )


def _scatter(
    points: Positions,
    is_star: np.ndarray,
    *,
    names: tuple[str, str],
    caption: str,
    offset: tuple[float, float] | None = None,
) -> page.Markup:
    """Return points on axes; with an offset, on axes of one scale about it."""
    try:
        import_optional("matplotlib", "plot", "This plot")
    except OptionalDependencyError as error:
        return page.Markup(f'<p class="note">{page.escape(error)}</p>')
    return page.figure(
        page.drawing(scatter_plot(points, is_star, names=names, offset=offset)), caption
    )


def scatter_plot(
    points: Positions,
    is_star: np.ndarray,
    *,
    names: tuple[str, str],
    offset: tuple[float, float] | None = None,
) -> Figure:
    """Draw points on axes that hold nearly all of them."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    plot = Figure(figsize=(5, 4.2), layout="constrained")
    with rc_context(page.PLOT_COLOURS):
        axes = plot.add_subplot()
    shown = np.isfinite(points[0]) & np.isfinite(points[1])
    for (label, (marker, colour)), kind in zip(_KINDS.items(), (~is_star, is_star), strict=True):
        x, y = (axis[shown & kind] for axis in points)
        axes.plot(x, y, marker, color=colour, markersize=4, alpha=0.8, label=label)
    if offset is None:
        limits = [_limits(axis[shown]) for axis in points]
    else:
        steps = [axis[shown] - middle for axis, middle in zip(points, offset, strict=True)]
        reach = max(map(abs, _limits(np.concatenate(steps))))
        limits = [(middle - reach, middle + reach) for middle in offset]
    axes.set(xlabel=names[0], ylabel=names[1], xlim=limits[0], ylim=limits[1])
    if offset is not None:
        axes.set_aspect("equal")
        axes.axvline(offset[0], color=page.PLOT_INK, linestyle="--", linewidth=1)
        axes.axhline(offset[1], color=page.PLOT_INK, linestyle="--", linewidth=1)
    axes.grid(color=page.PLOT_INK, alpha=0.3)
    axes.legend(fontsize="small", frameon=False, labelcolor=page.PLOT_INK)
    return plot


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Return limits that hold nearly all values, with some air."""
    if not len(values):
        return -1.0, 1.0
    low, high = np.percentile(values, [0.5, 99.5])
    air = 0.08 * (high - low) or 0.5
    return low - air, high + air


def _pairs_table(matches: Table, filter_name: str) -> page.Markup:
    """Return the brightest pairs as a table that is opened on demand."""
    bands = [band for band in _SHOWN_BANDS if f"mag_{band}" in matches.colnames]
    jwst_mags = plain_numbers(matches["jwst_mag"])
    order = np.argsort(np.where(np.isfinite(jwst_mags), jwst_mags, np.inf), kind="stable")
    order = order[:TABLE_ROWS]
    formats = {"ra": "{:.6f}", "dec": "{:+.6f}", "jwst_mag": "{:.2f}"}
    formats |= dict.fromkeys((f"mag_{band}" for band in bands), "{:.2f}")
    formats |= {"d_ra": "{:+.1f}", "d_dec": "{:+.1f}"}
    numbers = [_cells(matches[name][order], text) for name, text in formats.items()]
    heads = ["Label", "Type", "RA", "Dec", filter_name, *bands, "dRA", "dDec"]
    rows = zip(matches["label"][order], texts(matches["type"][order]), *numbers, strict=True)
    title = f"The {len(order)} brightest pairs" if len(order) < len(matches) else "Pairs"
    kinds = {head: "number" for head in heads if head != "Type"}
    return page.Markup(
        f'<details><summary>{title}</summary><p class="note">AB magnitudes, deg and mas.</p>'
        f"{page.table(heads, rows, kinds)}</details>"
    )


def _cells(column: Column, text: str) -> list[str]:
    return [text.format(value) if np.isfinite(value) else "" for value in plain_numbers(column)]
