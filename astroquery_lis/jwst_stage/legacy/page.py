"""A page per field: JWST and Legacy side by side, who matches whom, offsets and colours."""

import html
import os
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

import numpy as np

from ..._packages import package_version
from ...pictures.encode import data_uri
from ...pictures.rgb import rgb
from .sources import plain, texts
from .svg import Points, marks, scatter

__all__ = ["page_of", "write_page"]

TABLE_ROWS = 300
_COLOUR_BANDS = ("g", "r", "i", "z")
_SHOWN_BANDS = ("g", "r", "i", "z", "w1", "w2")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def _asset(name):
    return files(__package__).joinpath("data", name).read_text(encoding="utf-8")


def page_of(match, picture, legacy, *, title, facts=()):
    """Return the page of a field as HTML.

    Parameters
    ----------
    match : `~.legacy_match.CatalogMatch`
        The catalogues.
    picture : `~.legacy_picture.JwstPicture`
        Of the mosaics.
    legacy : `~astropy.io.fits.HDUList` or None
        Cutout on the grid of ``picture``; `None` where the survey has nothing.
    title : str
        Heading.
    facts : sequence of tuple of str
        Further names and values for the list of facts.

    Returns
    -------
    str
    """
    matches, told = match.matches, _filter_text(match, picture)
    both = [
        _view(f"JWST {', '.join(picture.filters)}", picture.image, picture, match, "jwst"),
    ]
    if legacy is not None:
        name = f"Legacy Survey {match.meta.get('release', '')}".strip()
        both.append(_view(name, rgb(legacy), picture, match, "legacy"))
    boxes = "".join(
        f'<label><input type="checkbox" checked value="{key}"><span class="key {key}"></span>'
        f"{text} ({number})</label>"
        for key, text, number in (
            ("match", "Matched", len(matches)),
            ("jwst-only", "JWST alone", len(match.jwst_only)),
            ("legacy-only", "Tractor alone", len(match.legacy_only)),
        )
    )
    legend = (
        '<p class="note"><span class="dot star"></span> stars with a proper motion, '
        '<span class="dot galaxy"></span> all others</p>'
    )
    lines = [
        ("Offset, JWST minus Legacy", str(match.offset)),
        ("Of the stars", str(match.star_offset) if match.star_offset.number else "no stars"),
        ("Epoch", match.meta.get("epoch") or "not known"),
        ("Radius", f"{match.meta.get('radius_arcsec', np.nan):g} arcsec about the common offset"),
        *facts,
    ]
    listed = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in lines)
    plots = (
        f'<div class="card"><h2>Offsets</h2>{_offset_plot(match)}{legend}</div>'
        f'<div class="card"><h2>Colours</h2>{_colour_plot(match, told)}{legend}</div>'
    )
    title = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="astroquery_lis {package_version()}">'
        f"<title>{title}</title><style>{_asset('field.css')}</style></head><body><h1>{title}</h1>"
        f'<p class="about">{len(matches)} of {len(matches) + len(match.jwst_only)} JWST sources '
        f"have a partner in Tractor, {len(match.legacy_only)} Tractor sources in the mosaic have "
        "none. Both pictures are on the grid of the mosaic.</p>"
        f'<div id="tools" role="group" aria-label="Marks" hidden>{boxes}</div>'
        f'<div class="pair">{"".join(both)}</div><div class="pair">{plots}</div>'
        f'<div class="card"><h2>Facts</h2><dl>{listed}</dl></div>'
        f"{_table(matches, told)}<script>{_asset('field.js')}</script></body></html>\n"
    )


def _filter_text(match, picture):
    return match.meta.get("filter") or (picture.filters[0] if len(picture.filters) == 1 else "JWST")


def _view(name, image, picture, match, side):
    """Return one of the two pictures with its marks."""
    ny, nx = image.shape[:2]
    if side == "jwst":
        pairs = match.matches["jwst_ra"], match.matches["jwst_dec"]
        alone, key, shape = match.jwst_only, "jwst-only", "square"
        place = ("jwst_ra", "jwst_dec")
    else:
        pairs = match.matches["ra"], match.matches["dec"]
        alone, key, shape = match.legacy_only, "legacy-only", "diamond"
        place = ("ra", "dec")
    titles = [f"{label}" for label in match.matches["label"]]
    own = f"{key.partition('-')[0]} source without partner"
    groups = [
        Points("match", *picture.place(*map(plain, pairs)), titles),
        Points(key, *picture.place(*(plain(alone[n]) for n in place)), [own] * len(alone), shape),
    ]
    size = max(nx, ny) / 75
    drawn = marks(
        groups,
        (ny, nx),
        label=f"{len(match.matches)} matched and {len(alone)} lone sources on {name}",
        size=size,
        keys={"match": range(len(match.matches))},
    )
    drawn = drawn.removesuffix("</svg>") + _compass(picture, size) + "</svg>"
    return (
        f'<div class="card"><h2>{html.escape(name)}</h2><div class="view"><img width="{nx}" '
        f'height="{ny}" alt="{html.escape(name)}" src="{data_uri(image)}">{drawn}</div></div>'
    )


def _compass(picture, size):
    """Return arrows to the north and to the east in the lower left corner."""
    ny, nx = picture.wcs.array_shape
    ra, dec = (float(v) for v in picture.wcs.pixel_to_world_values(nx / 2 - 0.5, ny / 2 - 0.5))
    step = 1e-5
    x, y = picture.place(
        np.array([ra, ra, ra + step / np.cos(np.radians(dec))]), np.array([dec, dec + step, dec])
    )
    parts = []
    for name, at in (("N", 1), ("E", 2)):
        along = np.array([x[at] - x[0], y[at] - y[0]])
        along *= 2.6 * size / (np.hypot(*along) or 1)
        x0, y0 = 4.2 * size, ny - 4.2 * size
        tip = x0 + along[0], y0 + along[1]
        parts.append(
            f'<path class="compass" d="M{x0:.1f} {y0:.1f}L{tip[0]:.1f} {tip[1]:.1f}"/>'
            f'<text class="compass-text" style="font-size:{1.6 * size:.1f}px" '
            f'x="{x0 + 1.4 * along[0]:.1f}" y="{y0 + 1.4 * along[1]:.1f}" text-anchor="middle" '
            f'dominant-baseline="central">{name}</text>'
        )
    return "".join(parts)


def _groups(match, x, y, titles):
    star = np.asarray(match.matches["carried"], bool)
    titles = np.array(titles, dtype=object)
    return [
        Points("galaxy", x[~star], y[~star], list(titles[~star]), "square"),
        Points("star", x[star], y[star], list(titles[star])),
    ]


def _offset_plot(match):
    matches = match.matches
    x, y = plain(matches["d_ra"]), plain(matches["d_dec"])
    titles = [
        f"{label}: {a:+.1f}, {b:+.1f} mas"
        for label, a, b in zip(matches["label"], x, y, strict=True)
    ]
    cross = (match.offset.d_ra.value, match.offset.d_dec.value) if len(matches) else None
    return scatter(
        _groups(match, x, y, titles),
        label=f"Differences of position: {match.offset}",
        x_label="dRA cos(Dec), JWST − Legacy, mas",
        y_label="dDec, mas",
        square=True,
        cross=cross,
    )


def _colour_plot(match, name):
    matches = match.matches
    bands = [band for band in _COLOUR_BANDS if f"mag_{band}" in matches.colnames]
    bands = [band for band in bands if np.isfinite(plain(matches[f"mag_{band}"])).any()]
    if len(bands) < 2:
        return '<p class="note">There are not two optical bands.</p>'
    red = bands[-1]
    blue = "r" if "r" in bands[:-1] else bands[-2]
    first, last = plain(matches[f"mag_{blue}"]), plain(matches[f"mag_{red}"])
    x, y = first - last, last - plain(matches["jwst_mag"])
    titles = [
        f"{label}: {a:.2f}, {b:.2f}" for label, a, b in zip(matches["label"], x, y, strict=True)
    ]
    return scatter(
        _groups(match, x, y, titles),
        label=f"Colours {blue} - {red} and {red} - {name} of the matched sources",
        x_label=f"{blue} − {red} (AB)",
        y_label=f"{red} − {name} (AB)",
    )


def _table(matches, name):
    """Return the brightest pairs as a table that opens when it is asked for."""
    bands = [band for band in _SHOWN_BANDS if f"mag_{band}" in matches.colnames]
    mags = plain(matches["jwst_mag"])
    order = np.argsort(np.where(np.isfinite(mags), mags, np.inf), kind="stable")[:TABLE_ROWS]
    heads = ["Label", "RA", "Dec", "Type", name, *bands, "dRA", "dDec"]
    kinds = texts(matches["type"])
    rows = []
    for at in order:
        row = matches[at]
        cells = [str(row["label"]), f"{row['ra']:.6f}", f"{row['dec']:+.6f}", kinds[at]]
        cells.append(_mag(mags[at]))
        cells += [_mag(plain(matches[f"mag_{band}"][at : at + 1])[0]) for band in bands]
        cells += [f"{row['d_ra']:+.1f}", f"{row['d_dec']:+.1f}"]
        rows.append("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>")
    title = f"The {len(order)} brightest pairs" if len(order) < len(matches) else "Pairs"
    head = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in heads)
    return (
        f'<details class="card"><summary>{title}</summary><p class="note">AB magnitudes, deg and '
        f'mas.</p><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _mag(value):
    return f"{value:.2f}" if np.isfinite(value) else ""


def write_page(path, text):
    """Write a page whole or not at all.

    Parameters
    ----------
    path : path-like
        The page, replaced if it is there.
    text : str
        HTML.

    Returns
    -------
    `~pathlib.Path`
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
