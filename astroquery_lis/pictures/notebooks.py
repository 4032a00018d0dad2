"""How cutouts and manifests are shown at the end of a notebook's cell."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from astropy.io.fits import HDUList
    from astropy.table import Table


def show_in_notebooks() -> None:
    """Let the notebook, if this process belongs to one, show what is ours as more than text."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    html = shell.display_formatter.formatters["text/html"]
    html.for_type_by_name("astropy.io.fits.hdu.hdulist", "HDUList", _cutout)
    html.for_type_by_name("astropy.table.table", "Table", _manifest)


def _cutout(hdul: HDUList) -> str | None:
    # What others made is shown as ever; what is closed has no pixels to show.
    if not hdul or "REQKEY" not in hdul[0].header:
        return None
    from .summary import CutoutSummary

    return CutoutSummary(hdul)._repr_html_()


def _manifest(table: Table) -> str:
    shown = str(table._repr_html_())
    if not {"Local Path", "Status"} <= set(table.colnames):
        return shown
    counts = Counter(str(status) for status in table["Status"])
    return f"<p>{', '.join(f'{n} {status}' for status, n in sorted(counts.items()))}</p>{shown}"
