"""The one frame of every HTML page, the parts it is made of, and pictures that a page can hold.

A page is one file that needs no other and no network.  Every part escapes what is no `Markup`.
"""

from __future__ import annotations

import base64
import html
import io
import struct
import zlib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._packages import import_optional, package_version
from ..exceptions import OptionalDependencyError
from ..io.store import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.figure import Figure

    from .._typing import FilePath

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_JPEG = {"quality": 95, "subsampling": 0}
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


def png_bytes(picture: np.ndarray) -> bytes:
    """Return a picture of uint8, shape (ny, nx, 3) or (ny, nx), first row on top, as a PNG file."""
    picture = np.ascontiguousarray(picture, np.uint8)
    ny, nx = picture.shape[:2]
    rows = picture.reshape(ny, -1)
    # Filter 2 of PNG: each row as its difference from the one above.
    lines = np.empty((ny, rows.shape[1] + 1), np.uint8)
    lines[:, 0] = 2
    lines[:, 1:] = rows
    lines[1:, 1:] -= rows[:-1]
    kind = 2 if picture.ndim == 3 else 0
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", nx, ny, 8, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines.tobytes(), 6)),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def picture_bytes(picture: np.ndarray, kind: str, purpose: str, **options: Any) -> bytes:
    """Return a picture as a file of pillow's: ``'jpeg'`` or ``'png'``, first row on top."""
    pillow = import_optional("PIL.Image", "plot", purpose)
    stream = io.BytesIO()
    options = (_JPEG if kind == "jpeg" else {}) | options
    pillow.fromarray(np.ascontiguousarray(picture)).save(stream, kind, **options)
    return stream.getvalue()


def data_uri(picture: np.ndarray | bytes, *, lossless: bool = False) -> str:
    """Return a picture as an address that holds it: a JPEG where pillow is there, or a PNG."""
    kind = "png"
    if isinstance(picture, bytes):
        data = picture
    elif lossless:
        data = png_bytes(picture)
    else:
        try:
            data = picture_bytes(picture, "jpeg", "A JPEG", quality=90, optimize=True)
            kind = "jpeg"
        except OptionalDependencyError:
            data = png_bytes(picture)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def thumbnail(picture: np.ndarray, size: int, *, enlarge: bool = False) -> np.ndarray:
    """Return a picture that fits into a square, by averaging or repeating whole pixels."""
    ny, nx = picture.shape[:2]
    factor = -(-max(ny, nx) // size)
    if factor == 1:
        times = size // max(ny, nx) if enlarge else 1
        return picture.repeat(times, axis=0).repeat(times, axis=1)
    # The last block is filled up by repeating the edge, so that no pixel is lost.
    pad = [(0, -ny % factor), (0, -nx % factor)] + [(0, 0)] * (picture.ndim - 2)
    blocks = np.pad(picture, pad, mode="edge")
    shape = (blocks.shape[0] // factor, factor, blocks.shape[1] // factor, factor)
    return blocks.reshape(*shape, *picture.shape[2:]).mean(axis=(1, 3)).astype(np.uint8)
