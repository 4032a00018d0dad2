"""The page: pictures, sections, and what they are put into."""

import base64
import html
import io

import numpy as np

from ..exceptions import OptionalDependencyError

__all__ = ["figure", "grey_array", "page", "pillow", "plain_section", "png_figure"]

STYLE = """
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; line-height: 1.5;
       font-family: system-ui, sans-serif; background: #11151c; color: #dde3ea; }
h1, h2 { font-weight: 600; } a { color: #8ab4f8; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 16rem; max-width: 27rem; }
img { width: 100%; image-rendering: pixelated; border-radius: 4px; display: block; }
figcaption { font-size: .85rem; color: #9aa7b4; margin-top: .3rem; }
pre { overflow-x: auto; background: #1a212b; padding: .8rem; border-radius: 4px;
      font-size: .8rem; }
"""


def pillow():
    """Return `PIL.Image`.

    Raises
    ------
    OptionalDependencyError
        If pillow is not installed.
    """
    try:
        import PIL.Image
    except ImportError as error:
        msg = "The demo's pictures need pillow: install astroquery_lis[plot]."
        raise OptionalDependencyError(msg, cause=error) from error
    return PIL.Image


def grey_array(data):
    """Return a grey picture, black at 0 and white at the largest value."""
    top = np.nanmax(data) or 1
    return (255 * np.clip(np.nan_to_num(data) / top, 0, 1)).astype(np.uint8)[::-1]


def figure(array, caption):
    """Return the HTML of a picture, the first row at the top."""
    stream = io.BytesIO()
    pillow().fromarray(np.ascontiguousarray(array)).save(stream, "PNG", optimize=True)
    return png_figure(stream.getvalue(), caption)


def png_figure(data, caption):
    """Return the HTML of a picture in PNG bytes."""
    code = base64.b64encode(data).decode()
    text = html.escape(caption)
    image = f'<img alt="{text}" src="data:image/png;base64,{code}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def plain_section(title, text, figures):
    """Return the HTML of a section: a title, a sentence, pictures."""
    return (
        f"<section><h2>{html.escape(title)}</h2><p>{html.escape(text)}</p>"
        f'<div class="pictures">{figures}</div></section>'
    )


def page(sections):
    """Return the page with the sections."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>astroquery_lis demo</title><style>{STYLE}</style></head><body>"
        "<h1>A simulated sky</h1><p>Every picture of the survey was cut out of its bricks by "
        "<code>LegacySurvey.get_cutout</code>, over HTTP, a few compressed tiles at a time. The "
        "sky is simulated: do not use it for science.</p>" + "".join(sections) + "</body></html>\n"
    )
