"""What there is of the survey, and what to cite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from astropy.io import fits
from astropy.table import Table

from .. import survey
from .._conf import setting
from .._packages import package_version
from .._typing import Coordinates, Region
from ..exceptions import InvalidRequestError
from ..survey.releases import REGIONS, RELEASES, WISE_BANDS, get_release
from .base import SurveyBase, whole_number
from .inputs import as_position

__all__ = [
    "Citations",
    "Reference",
    "references",
    "services",
]

ALWAYS = ("survey", "astroquery", "astropy", "software")


@dataclass(frozen=True)
class Reference:
    """One thing to cite.

    Attributes
    ----------
    key : str
        Key of the BibTeX entry.
    short : str
        As in a running text.
    bibtex : str
        The BibTeX entry.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey
    >>> LegacySurvey.cite().references[0].short
    'Dey et al. 2019, AJ, 157, 168'
    """

    key: str
    short: str
    bibtex: str


def _text(name: str) -> str:
    return files(__package__).joinpath("data", name).read_text("utf-8")


@cache
def references() -> Mapping[str, Reference]:
    """Return papers, and this package, by what they are cited for."""
    # Each entry has a comment before it that says its use and short form.
    text = _text("references.bib").replace("VERSION", package_version())
    entries = {}
    for entry in text.strip().split("\n\n"):
        comment, _, bibtex = entry.partition("\n")
        name, _, short = comment.removeprefix("% ").partition(": ")
        key = bibtex.partition("{")[2].partition(",")[0]
        entries[name] = Reference(key, short, bibtex)
    return MappingProxyType(entries)


@cache
def services() -> Mapping[str, str]:
    """Return what to acknowledge, by what was used."""
    import tomllib

    return MappingProxyType(tomllib.loads(_text("acknowledgements.toml")))


NADC_HOST = "china-vo.org"
MAX_ZOOM = 20


@dataclass(frozen=True)
class Citations:
    """What to cite and to acknowledge; printed, it is text to work from.

    Attributes
    ----------
    references : tuple of `Reference`
        This package last.
    acknowledgements : tuple of str
        A sentence or two each.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey
    >>> len(LegacySurvey.cite().references)
    4
    """

    references: tuple[Reference, ...]
    acknowledgements: tuple[str, ...]

    @property
    def bibtex(self) -> str:
        """All the BibTeX entries, a string that can be written to a ``.bib`` file."""
        return "\n\n".join(reference.bibtex for reference in self.references) + "\n"

    def __str__(self) -> str:
        cite = "\n".join(f"  {r.short}  [{r.key}]" for r in self.references)
        thank = "\n".join(f"  {sentence}" for sentence in self.acknowledgements)
        return f"Cite:\n{cite}\nAcknowledge:\n{thank}\nBibTeX: .bibtex"

    __repr__ = __str__


class AboutMethods(SurveyBase):
    """What there is of the survey, and what to cite."""

    def cite(self, *data: fits.HDUList | Table) -> Citations:
        """Return what to cite and to acknowledge in work with the survey's data.

        Parameters
        ----------
        *data : `~astropy.io.fits.HDUList` or `~astropy.table.Table`, optional
            Cutouts, and tables of `query_tractor` or `download_cutouts`: what they were made of
            (WISE, the viewer, a TAP service, the mirror in China) is counted in.

        Returns
        -------
        `~astroquery_lis.client.about.Citations`
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
        uses = {"survey"} | {name for item in data for name in _uses(item)}
        names = [name for name in references() if name in uses or name in ALWAYS]
        thanks = tuple(text for name, text in services().items() if name in uses)
        return Citations(tuple(references()[name] for name in names), thanks)

    def list_releases(self) -> Table:
        """Return the data releases: bands, regions, products, notes.

        Returns
        -------
        `~astropy.table.Table`
            One row per release: ``release``, ``regions``, ``bands_north``, ``bands_south``,
            ``products``, ``note``.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> print(*LegacySurvey.list_releases()['release'])
        dr5 dr6 dr7 dr8 dr9 dr10 dr11
        """
        rows = [
            (
                release.name,
                ",".join(release.regions),
                *(",".join(release.trees[r].bands) if r in release.trees else "" for r in REGIONS),
                ",".join(release.products),
                release.note,
            )
            for release in RELEASES.values()
        ]
        names = ("release", "regions", "bands_north", "bands_south", "products", "note")
        return Table(rows=rows, names=names)

    def list_bands(self, *, release: str | None = None, region: Region = "auto") -> list[str]:
        """Return the optical bands of a release, blue to red.

        Parameters
        ----------
        release : str, optional
            By default `release`.
        region : {'auto', 'north', 'south'}, optional
            ``'auto'`` for those that either region has.

        Returns
        -------
        list of str

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> LegacySurvey.list_bands(release='dr10', region='north')
        ['g', 'r', 'z']
        """
        release, region = self._tree(release, region)
        return list(get_release(release).bands_in[region])

    def list_products(self, *, release: str | None = None) -> Table:
        """Return a `~astropy.table.Table` of the coadd products of a release.

        Parameters
        ----------
        release : str, optional
            By default `release`.

        Returns
        -------
        `~astropy.table.Table`
            Columns ``product``, ``per_band``, ``unit``, ``description``.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> print(*LegacySurvey.list_products(release='dr9')['product'][:3])
        image invvar model
        """
        names = get_release(self._release_name(release)).products
        products = (survey.paths.COADD_PRODUCTS[name] for name in names)
        rows = [(p.name, p.per_band, p.unit, p.description) for p in products]
        return Table(rows=rows, names=("product", "per_band", "unit", "description"))

    def list_columns(self, *, release: str | None = None, region: Region = "auto") -> Table:
        """Return a `~astropy.table.Table` of the columns of the catalogue.

        Parameters
        ----------
        release : str, optional
            By default `release`.
        region : {'auto', 'north', 'south'}, optional
            ``'auto'`` for those that either region has.

        Returns
        -------
        `~astropy.table.Table`
            Columns ``name``, ``family``, ``band``, ``dtype``, ``length`` (values per row),
            ``unit``, ``core`` (whether every source has it, which makes it part of the default),
            ``computed`` (whether it is computed here from others: magnitudes, errors, colours).

        Raises
        ------
        InvalidRequestError
            If there is no such release or region.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> columns = LegacySurvey.list_columns(release='dr9')
        >>> print(columns['unit'][columns['name'] == 'flux_r'][0])
        nmgy
        """
        release, region = self._tree(release, region)
        columns = survey.tractor_columns
        schema, computed = columns.tractor_columns(release), columns.computed_columns(release)
        every = {**schema, **computed, **columns.file_columns(release)}.values()
        rows = [
            (
                *(c.name, c.family, c.band or "", c.dtype, c.length, str(c.unit or "")),
                *(c.in_tap and c.name in schema, c.name in computed),
            )
            for c in columns.in_region(every, release, region)
        ]
        names = ("name", "family", "band", "dtype", "length", "unit", "core", "computed")
        return Table(rows=rows, names=names)

    def list_layers(self) -> Table:
        """Return the viewer's layers and what each can serve.

        Returns
        -------
        `~astropy.table.Table`
            One row per layer: ``layer``, ``survey``, ``bands``, its native pixel scale, and what it
            serves truthfully.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> layers = LegacySurvey.list_layers()
        >>> 'ls-dr10' in layers['layer']
        True
        """
        names = (
            *("name", "survey", "bands", "default_bands", "pixel_scale_arcsec", "product"),
            *("release", "region", "fits", "invvar", "maskbits", "unit", "note"),
        )
        layers = survey.layers.LAYERS.values()
        rows = [[_cell(getattr(layer, name)) for name in names] for layer in layers]
        table = Table(rows=rows, names=names)
        table.rename_columns(["name", "pixel_scale_arcsec"], ["layer", "pixel_scale"])
        table["pixel_scale"].unit = "arcsec"
        return table

    def viewer_url(
        self, coordinates: Coordinates, *, layer: str | None = None, zoom: int = 15
    ) -> str:
        """Return the address of the viewer's page at a position, to be opened in a browser.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord` or str
            One position.
        layer : str, optional
            By default that of `release`.
        zoom : int, optional
            14 is 0.262 arcsec per screen pixel; one more halves it.  From 0 to 20.

        Returns
        -------
        str

        Raises
        ------
        InvalidRequestError
            If an argument is wrong.

        Examples
        --------
        >>> from astropy.coordinates import SkyCoord
        >>> from astroquery_lis import LegacySurvey
        >>> url = LegacySurvey.viewer_url(SkyCoord(190.1086, 1.2005, unit='deg'), layer='ls-dr10')
        >>> url.rpartition('?')[2]
        'ra=190.108600&dec=1.200500&layer=ls-dr10&zoom=15'
        """
        shown = self._layer(layer)
        zoom = whole_number("zoom", zoom, MAX_ZOOM)
        ra_deg, dec_deg = as_position(coordinates)
        root = setting("viewer_url").rstrip("/")
        return f"{root}?ra={ra_deg:.6f}&dec={dec_deg:.6f}&layer={shown.name}&zoom={zoom}"

    def list_file_products(self, *, release: str | None = None) -> Table:
        """Return a `~astropy.table.Table` of the kinds of files that `get_brick_files` fetches.

        Parameters
        ----------
        release : str, optional
            By default `release`.

        Returns
        -------
        `~astropy.table.Table`
            Columns ``product``, ``per`` (what there is one of) and ``description``.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> products = LegacySurvey.list_file_products()
        >>> products.colnames
        ['product', 'per', 'description']
        """
        data = get_release(self._release_name(release))
        paths = survey.paths
        products = [p for p in paths.FILE_PRODUCTS.values() if paths.has_product(data, p.name)]
        rows = [(product.name, product.per, product.description) for product in products]
        return Table(rows=rows, names=("product", "per", "description"))


def _uses(item: fits.HDUList | Table) -> Iterator[str]:
    """Yield what one thing was made of, by the names of `services`."""
    sources, places, bands = _origin(item)
    if "viewer" in sources:
        yield "viewer"
    if "tap" in sources:
        yield "datalab"
    if NADC_HOST in places:
        yield "nadc"
    if bands & set(WISE_BANDS):
        yield "unwise"


def _origin(item: fits.HDUList | Table) -> tuple[str, str, set[str]]:
    """Return the names of the sources of one thing, where its files came from, and its bands."""
    if isinstance(item, fits.HDUList):
        header = item[0].header
        bands = {hdu.name.rpartition("_")[2] for hdu in item[1:]}
        is_unwise = "unwise" in str(header.get("LAYER", ""))
        bands.update(WISE_BANDS if is_unwise else ())
        return str(header.get("SOURCE", "")), str(header.get("MIRROR", "")), bands
    if isinstance(item, Table):
        columns = {name: map(str, item[name]) for name in ("URL", "bands") if name in item.colnames}
        bands = {name.upper().rpartition("_")[2] for name in item.colnames}
        bands.update(band for text in columns.get("bands", ()) for band in text.split(","))
        return str(item.meta.get("source", "")), " ".join(columns.get("URL", ())), bands
    msg = (
        f"cite() takes cutouts (HDUList) and tables, not {type(item).__name__}: leave it out, "
        "or give what get_cutout, query_tractor or download_cutouts returned."
    )
    raise InvalidRequestError(msg, parameter="data", value=item)


def _cell(value: object) -> object:
    return ",".join(value) if isinstance(value, tuple) else "" if value is None else value
