"""HTML: the one frame of every page, its parts, the gallery, and the summary for notebooks.

A page is one file that needs no other and no network.  Every part escapes what is no `Markup`.
"""

from __future__ import annotations

import html
import io
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.table import Table

from .._packages import package_version
from ..images.cutout_hdus import FLUX_PRODUCTS, as_cutout, pixel_side_arcsec, sky_matrix
from ..io.whole_files import write_whole
from .rgb import NO_DATA_COLOUR, data_uri, grey_levels, north_up, rgb, thumbnail
from .sheet import PictureRow, panel_names, picture_rows, text_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .._typing import Bands, FilePath, SkyCoord
    from .sheet import Cutouts


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_DRAWING_DPI = 160
_LARGEST_ENLARGED_PIX = 256

PLOT_INK = "#808a96"
"""Seen on a light page and on a dark one."""

PLOT_COLOURS: dict[Any, str] = dict.fromkeys(
    ("axes.edgecolor", "axes.labelcolor", "grid.color", "xtick.color", "ytick.color"), PLOT_INK
)
"""Settings of matplotlib for what `drawing` takes."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Return a value as HTML."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def asset(name: str) -> str:
    """Return a style sheet or script of this package."""
    return files(__package__).joinpath("data", name).read_text(encoding="utf-8")


def frame(title: str, *, about: str = "", script: str = "") -> tuple[str, str]:
    """Return what stands before and after the body of a page; `script` names an asset."""
    policy = _POLICY + ("; script-src 'unsafe-inline'" if script else "")
    note = f'<p class="about">{escape(about)}</p>' if about else ""
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="astroquery_lis {package_version()}">'
        f"<title>{escape(title)}</title><style>{asset('page.css')}</style></head><body>"
        f"<h1>{escape(title)}</h1>{note}"
    )
    code = f"<script>{asset(script)}</script>" if script else ""
    return head, f"{code}</body></html>\n"


def html_page(title: str, body: str, *, about: str = "", script: str = "") -> str:
    """Return a whole page."""
    head, foot = frame(title, about=about, script=script)
    return f"{head}{body}{foot}"


def write_page(path: FilePath, text: str) -> Path:
    """Write a page whole or not at all."""
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def section(title: str, *parts: str, note: str = "") -> Markup:
    """Return a part of the page with a heading, and a sentence about it."""
    text = f"<p>{escape(note)}</p>" if note else ""
    body = "".join(map(escape, parts))
    return Markup(f"<section><h2>{escape(title)}</h2>{text}{body}</section>\n")


def span(text: object, kind: str) -> Markup:
    """Return text with a class of the style sheet."""
    return Markup(f'<span class="{escape(kind)}">{escape(text)}</span>')


def table_head(heads: Sequence[str], kinds: Sequence[str], style: str = "cards") -> Markup:
    """Return what stands before the rows of a table; `kinds` are the classes of the columns."""
    cells = "".join(
        f'<th scope="col" class="{kind}">{escape(head)}</th>'
        for head, kind in zip(heads, kinds, strict=True)
    )
    return Markup(f'<div class="scroll {style}"><table><thead><tr>{cells}</tr></thead><tbody>\n')


def table_row(
    heads: Sequence[str], kinds: Sequence[str], cells: Sequence[object], **data: str
) -> Markup:
    """Return a row; `data` are the values of its ``data-`` attributes."""
    line = "".join(
        f'<td data-label="{escape(head)}" class="{kind}">{escape(cell)}</td>'
        for head, kind, cell in zip(heads, kinds, cells, strict=True)
    )
    attributes = "".join(f' data-{name}="{escape(value)}"' for name, value in data.items())
    return Markup(f"<tr{attributes}>{line}</tr>\n")


TABLE_FOOT = Markup("</tbody></table></div>")


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    kinds: Mapping[str, str] | None = None,
) -> Markup:
    """Return a table whose rows become cards on narrow screens; `kinds` are classes by head."""
    classes = [(kinds or {}).get(head, "") for head in heads]
    lines = "".join(table_row(heads, classes, row) for row in rows)
    return Markup(table_head(heads, classes) + lines + TABLE_FOOT)


def facts(values: Mapping[str, object]) -> Markup:
    """Return names and values; those without a value are left out."""
    lines = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in values.items()
        if value not in (None, "")
    )
    return Markup(f'<dl class="facts">{lines}</dl>')


def image(
    picture: np.ndarray | bytes, name: str, *, lossless: bool = False, lazy: bool = False
) -> Markup:
    """Return the tag of a picture, which may be a PNG file already."""
    size, loading = "", ' loading="lazy" decoding="async"' if lazy else ""
    if not isinstance(picture, bytes):
        ny, nx = picture.shape[:2]
        size = f' width="{nx}" height="{ny}"'
        if max(ny, nx) <= _LARGEST_ENLARGED_PIX:
            size += ' class="pixels"'
    address = data_uri(picture, lossless=lossless)
    return Markup(f'<img alt="{escape(name)}"{size}{loading} src="{address}">')


def figure(
    picture: np.ndarray | bytes,
    name: str,
    caption: str = "",
    *,
    lossless: bool = False,
    marks: str = "",
) -> Markup:
    """Return a picture above its caption, by default its name; `marks` are SVG in its pixels."""
    tag = image(picture, name, lossless=lossless)
    if marks and not isinstance(picture, bytes):
        tag = marked(tag, picture.shape[:2], marks)
    return Markup(f"<figure>{tag}<figcaption>{escape(caption or name)}</figcaption></figure>")


def marked(tag: Markup, shape: tuple[int, int], marks: str, label: str = "") -> Markup:
    """Return a picture of ny, nx pixels with SVG over it; without a label that is decoration."""
    role = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    box = f'viewBox="0 0 {shape[1]} {shape[0]}" preserveAspectRatio="none"'
    return Markup(f'<div class="view">{tag}<svg {box} {role}>{marks}</svg></div>')


def figures(*parts: str) -> Markup:
    """Return figures side by side."""
    return Markup(f'<div class="figures">{"".join(map(escape, parts))}</div>')


def drawing(plot: Figure) -> bytes:
    """Return a figure of matplotlib as a PNG file whose ground is that of the page."""
    stream = io.BytesIO()
    plot.savefig(stream, format="png", dpi=_DRAWING_DPI, transparent=True)
    return stream.getvalue()


# ---- many cutouts -------------------------------------------------------------------------------


def gallery(
    manifest: Cutouts,
    path: FilePath,
    *,
    title: str = "Cutouts",
    size: int = 256,
    panels: Sequence[Bands] = (),
    columns: str | Sequence[str] = (),
    coordinates: SkyCoord | None = None,
    bands: Bands | None = None,
    stretch: str = "survey",
    brightness: float = 1.0,
) -> Path:
    """Write a page of many cutouts: one HTML file that needs no other and no network.

    Parameters
    ----------
    manifest : `~astropy.table.Table`, iterable of `~astropy.io.fits.HDUList`, or dict
        As for `contact_sheet`; a manifest with any columns added to it.  Of several surveys the
        first that has the target tells the rest of the row.
    path : str or `~pathlib.Path`
        The page, replaced if it is there.
    title : str, optional
        Heading of the page.
    size : int, optional
        Pixels that each picture is made to fit into.
    panels : sequence of str or of sequence of str, optional
        As for `contact_sheet`.
    columns : sequence of str, optional
        Further columns of the manifest to show and to sort by.
    coordinates : `~astropy.coordinates.SkyCoord`, optional
        Position of every row; by default the columns ``ra`` and ``dec``, in degrees where they
        have no unit, then the headers of the cutouts.
    bands, stretch, brightness
        As for `~astroquery_lis.pictures.rgb`.

    Returns
    -------
    `~pathlib.Path`
        The page.

    Raises
    ------
    InvalidRequestError
        If an argument is wrong.  A file that cannot be read is no error: its row says why.

    Notes
    -----
    With pillow installed a picture of 256 pixels takes about 60 kB, without it 200 kB.  Rows are
    written as they are read, so that memory holds one cutout at a time.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey, sandbox
    >>> import tempfile
    >>> from astroquery_lis import pictures
    >>> with sandbox.serve() as sky:
    ...     hdul = LegacySurvey.get_cutout(sky.positions['field'], 32, bands='grz')
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = pictures.gallery([hdul], folder + '/page.html', title='One')
    ...     text = page.read_text()
    >>> '<title>One' in text
    True
    """
    path = Path(path)
    columns = [columns] if isinstance(columns, str) else list(columns)
    look: dict[str, Any] = {"bands": bands, "stretch": stretch, "brightness": brightness}
    rows = picture_rows(
        manifest, size, panels=panels, coordinates=coordinates, columns=columns, **look
    )
    pictures = " | ".join(filter(None, panel_names(manifest, panels))) or "Picture"
    heads = ["#", pictures, "Name", "RA", "Dec", "Status", "Bands", *columns, "Message", "Viewer"]
    kinds = ["number index", "picture", "name", "number", "number", "status", ""]
    kinds += [_column_kind(manifest, name) for name in columns]
    kinds += ["message", "link"]
    path.parent.mkdir(parents=True, exist_ok=True)
    # The head counts the rows, which are written while they are read: they wait in a file.
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent) as body:
        counts: Counter[str] = Counter()
        for number, row in enumerate(rows):
            counts[row.status] += 1
            cells = [str(number), *_cells(row, size)]
            body.write(table_row(heads, kinds, cells, status=row.status))
        body.seek(0)
        about = ", ".join(f"{n} {status}" for status, n in counts.items()) or "no rows"
        head, foot = frame(title, about=f"{about}. North is up, east is left.", script="gallery.js")
        with write_whole(path) as temporary, open(temporary, "w", encoding="utf-8") as page:
            page.write(head + asset("gallery.html") + table_head(heads, kinds, "gallery"))
            shutil.copyfileobj(body, page, 1 << 20)
            page.write(TABLE_FOOT + foot)
    return path


def _column_kind(manifest: Cutouts, name: str) -> str:
    """Return the class of a further column: that of numbers, or none."""
    first = next(iter(manifest.values())) if isinstance(manifest, Mapping) else manifest
    if not isinstance(first, Table) or name not in first.colnames:
        return ""
    dtype = getattr(first[name], "dtype", np.dtype(object))
    return "number" if dtype.kind in "iuf" else ""


def _cells(row: PictureRow, size: int) -> list[str]:
    """Return the cells of a row after its number."""
    name, shown = escape(row.name), row.picture(size)
    if shown is None:
        picture = f'<button type="button" class="blank" aria-label="{name}">no picture</button>'
    else:
        tag = image(shown, row.name, lazy=True)
        picture = f'<button type="button" class="open" aria-label="{name}: enlarge">{tag}</button>'
    return [
        Markup(picture),
        name,
        f"{row.ra_deg:.6f}" if np.isfinite(row.ra_deg) else "",
        f"{row.dec_deg:+.6f}" if np.isfinite(row.dec_deg) else "",
        span(row.status, f"state {row.status}"),
        row.bands,
        *("" if text == "nan" else text for text in map(text_of, row.values)),
        row.message,
        _viewer_link(row),
    ]


def _viewer_link(row: PictureRow) -> Markup:
    """Return the link to a row's place in the viewer, if it has one."""
    if not row.viewer_address:
        return Markup()
    return Markup(
        f'<a href="{escape(row.viewer_address)}" target="_blank" '
        f'rel="noopener noreferrer" aria-label="{escape(row.name)} in the viewer">Viewer</a>'
    )


# ---- one cutout at a glance ---------------------------------------------------------------------

SHOWN_CARDS = (
    *("RELEASE", "REGION", "LAYER", "SOURCE", "MIRROR", "RA", "DEC", "SIZEX", "SIZEY"),
    *("PRODUCTS", "BANDS", "GRID", "NBRICKS", "REQKEY", "CREATOR"),
)
THUMBNAIL_PIX = 120


class CutoutSummary:
    """Shows a cutout: a picture of every plane in a notebook, lines of text elsewhere.

    It keeps no pixels of the cutout: pictures are made at once.

    Attributes
    ----------
    cards : dict
        The cards of the primary header that say what it is.
    planes : list of tuple
        Name, band, shape, pixel scale in arcsec, unit, and share of pixels with a finite value that
        is not 0, of each plane.
    """

    def __init__(self, hdul: fits.HDUList) -> None:
        header = hdul[0].header
        self.cards: dict[str, Any] = {
            name: header[name] for name in SHOWN_CARDS if header.get(name, "") != ""
        }
        self.planes: list[tuple[str, str, tuple[int, int], float, str, float]] = []
        self._images: dict[str, dict[str, str]] = {}
        self._colour = ""
        for hdu in filter(_is_plane, hdul):
            self._add(hdu)
        if any(name.lower().startswith(FLUX_PRODUCTS) for name, *_ in self.planes):
            thin = fits.HDUList([hdul[0], *(_thinned(hdu) for hdu in hdul[1:])])
            self._colour = image(thumbnail(rgb(thin), 2 * THUMBNAIL_PIX), "colour")

    def _add(self, hdu: fits.ImageHDU) -> None:
        """Take a plane in."""
        band = str(hdu.header.get("BAND", "")).strip()
        unit = str(hdu.header.get("BUNIT", "")).strip()
        share = float(np.mean(np.isfinite(hdu.data) & (hdu.data != 0)))
        side = hdu.header.get("PIXSCALE") or pixel_side_arcsec(hdu.header)
        self.planes.append((hdu.name, band, hdu.shape, float(side), unit, share))
        tag = image(thumbnail(grey_picture(_thinned(hdu)), THUMBNAIL_PIX), hdu.name)
        self._images.setdefault(band, {})[_product(hdu)] = tag

    def __str__(self) -> str:
        lines = [f"{name:8} {value}" for name, value in self.cards.items()]
        lines += ["", f"{'plane':12} {'pixels':>11} {'arcsec':>7} {'unit':14} not 0 or NaN"]
        for name, _, (ny, nx), side, unit, share in self.planes:
            size = f"{ny} x {nx}"
            lines.append(f"{name:12} {size:>11} {side:7.3f} {unit:14} {100 * share:.1f} %")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        products = list(dict.fromkeys(p for row in self._images.values() for p in row))
        rows = (
            [band or "all", *(row.get(product, "") for product in products)]
            for band, row in self._images.items()
        )
        return (
            "<div style='display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start'>"
            f"{self._colour}{table(('card', 'value'), self.cards.items())}</div>"
            f"{table(('band', *products), rows)}"
        )


def _is_plane(hdu: fits.ImageHDU) -> bool:
    return getattr(hdu, "is_image", False) and np.ndim(hdu.data) == 2


def summary(hdul: fits.HDUList | FilePath) -> CutoutSummary:
    """Return what shows a cutout at a glance.

    Parameters
    ----------
    hdul : `~astropy.io.fits.HDUList`, str or path-like
        As for `~astroquery_lis.pictures.rgb`.

    Returns
    -------
    CutoutSummary
        At the end of a notebook's cell, a row of pictures for each band, the colour picture and the
        cards that say what it is; printed, the same as text.

    Raises
    ------
    InvalidRequestError
        If it is no list of HDUs and no file of one.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey, sandbox
    >>> from astroquery_lis import pictures
    >>> with sandbox.serve() as sky:
    ...     hdul = LegacySurvey.get_cutout(sky.positions['field'], 32, bands='grz')
    >>> print(str(pictures.summary(hdul)).splitlines()[0])
    RELEASE  dr10
    """
    return CutoutSummary(as_cutout(hdul))


def grey_picture(hdu: fits.ImageHDU) -> np.ndarray:
    """Return a plane in grey, north up: fluxes by their noise, masks by bits, others from 0."""
    data, product = hdu.data, _product(hdu)
    has = np.isfinite(data)
    if product == "MASKBITS":
        levels = np.where(data != 0, 0.4, 0) + 0.6 * (data > 1)
    elif product.lower() in (*FLUX_PRODUCTS, "snr"):
        levels = grey_levels(data)
    else:
        values = np.clip(np.where(has, data, 0), 0, None)
        levels = (values / (values.max() or 1)) ** (0.5 if product == "PSF" else 1)
    grey = (255 * levels).astype(np.uint8)
    grey[~has] = NO_DATA_COLOUR[0]
    return north_up(grey, sky_matrix(hdu.header))


def _thinned(hdu: fits.ImageHDU) -> fits.ImageHDU:
    """Return a plane with fewer pixels if it has many more than a small picture shows."""
    if not getattr(hdu, "is_image", False) or hdu.data is None or hdu.data.ndim != 2:
        return hdu
    step = max(1, min(hdu.shape) // (4 * THUMBNAIL_PIX))
    return hdu if step == 1 else fits.ImageHDU(hdu.data[::step, ::step], hdu.header, hdu.name)


def _product(hdu: fits.ImageHDU) -> str:
    return hdu.name.rpartition("_")[0] if str(hdu.header.get("BAND", "")).strip() else hdu.name


# ---- notebooks ----------------------------------------------------------------------------------


def show_in_notebooks() -> None:
    """Let the notebook, if this process belongs to one, show what is ours as more than text."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    html = shell.display_formatter.formatters["text/html"]
    html.for_type_by_name("astropy.io.fits.hdu.hdulist", "HDUList", _cutout)
    html.for_type_by_name("astropy.table.table", "Table", _manifest)


def _cutout(hdul: fits.HDUList) -> str | None:
    # What others made is shown as ever; what is closed has no pixels to show.
    if not hdul or "REQKEY" not in hdul[0].header:
        return None
    return CutoutSummary(hdul)._repr_html_()


def _manifest(table: Table) -> str:
    shown = str(table._repr_html_())
    if not {"Local Path", "Status"} <= set(table.colnames):
        return shown
    counts = Counter(str(status) for status in table["Status"])
    return f"<p>{', '.join(f'{n} {status}' for status, n in sorted(counts.items()))}</p>{shown}"
