"""The method that tells what to cite."""

from collections.abc import Iterator

from astropy.io import fits
from astropy.table import Table

from .._packages import package_version
from ..exceptions import InvalidRequestError
from ..survey.citations import Citations, citations
from ..survey.releases import WISE_BANDS
from .base import SurveyBase

__all__ = ["CitationMethods"]

NADC_HOST = "china-vo.org"


class CitationMethods(SurveyBase):
    """What to cite."""

    def cite(self, *data: fits.HDUList | Table) -> Citations:
        """Return what to cite and to acknowledge in work with the survey's data.

        Parameters
        ----------
        *data : `~astropy.io.fits.HDUList` or `~astropy.table.Table`, optional
            Cutouts, and tables of `query_tractor` or `download_cutouts`: what they were made of
            (WISE, the viewer, a TAP service, the mirror in China) is counted in.

        Returns
        -------
        `~astroquery_lis.survey.citations.Citations`
            ``str()`` of it is a list to work from; ``bibtex`` has the entries of the survey's
            overview paper, of the software, and of what else was used; ``acknowledgements`` says
            what to acknowledge and where the text for it is.

        Raises
        ------
        InvalidRequestError
            If something is neither a cutout nor a table.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> print(LegacySurvey.cite())
        Cite:
          Dey et al. 2019, AJ, 157, 168  [2019AJ....157..168D]
          ...
        >>> LegacySurvey.cite().bibtex[:28]
        '@article{2019AJ....157..168D'
        """
        return citations({name for item in data for name in _used(item)}, package_version())


def _used(item: fits.HDUList | Table) -> Iterator[str]:
    """Yield what one thing was made of, by the names of ``SERVICES``."""
    if isinstance(item, fits.HDUList):
        header = item[0].header
        sources, places = str(header.get("SOURCE", "")), str(header.get("MIRROR", ""))
        bands = {hdu.name.rpartition("_")[2] for hdu in item[1:]}
        if "unwise" in str(header.get("LAYER", "")):
            bands |= set(WISE_BANDS)
    elif isinstance(item, Table):
        sources = str(item.meta.get("source", ""))
        places = " ".join(str(url) for url in item["URL"]) if "URL" in item.colnames else ""
        bands = {name.upper().rpartition("_")[2] for name in item.colnames}
        if "bands" in item.colnames:
            bands |= {band for text in item["bands"] for band in str(text).split(",")}
    else:
        msg = (
            f"cite() takes cutouts (HDUList) and tables, not {type(item).__name__}: leave it out, "
            "or give what get_cutout, query_tractor or download_cutouts returned."
        )
        raise InvalidRequestError(msg, parameter="data", value=item)
    if "viewer" in sources:
        yield "viewer"
    if "tap" in sources:
        yield "datalab"
    if NADC_HOST in places:
        yield "nadc"
    if bands & set(WISE_BANDS):
        yield "unwise"
