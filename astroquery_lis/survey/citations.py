"""What work that uses the survey and this package cites, and where to find what it acknowledges."""

from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["ACKNOWLEDGEMENT_URL", "REFERENCES", "SERVICES", "Citations", "Reference", "citations"]

ACKNOWLEDGEMENT_URL = "https://www.legacysurvey.org/acknowledgment/"
"""The survey's page with the text to copy; it differs with the data that were used."""


@dataclass(frozen=True)
class Reference:
    """One thing to cite.

    Attributes
    ----------
    key : str
        Key of the BibTeX entry.
    kind : str
        Type of the BibTeX entry, such as ``'article'``.
    fields : tuple of (str, str)
        Its fields, in order.
    short : str
        As in a running text.

    Examples
    --------
    >>> from astroquery_lis.survey.citations import REFERENCES
    >>> REFERENCES['unwise'].short
    'Lang 2014, AJ, 147, 108'
    """

    key: str
    kind: str
    fields: tuple
    short: str

    @property
    def bibtex(self):
        """The BibTeX entry, a string.

        Examples
        --------
        >>> from astroquery_lis.survey.citations import REFERENCES
        >>> print(REFERENCES['survey'].bibtex.splitlines()[0])
        @article{2019AJ....157..168D,
        """
        width = max(len(name) for name, _ in self.fields)
        lines = (f"  {name:<{width}} = {{{value}}}," for name, value in self.fields)
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}"])


def _article(key, author, title, journal, volume, pages, year, doi, short):
    names = ("author", "title", "journal", "year", "volume", "pages", "doi")
    values = (author, f"{{{title}}}", journal, year, volume, pages, doi)
    return Reference(key, "article", tuple(zip(names, values, strict=True)), short)


_AJ = "The Astronomical Journal"

REFERENCES = MappingProxyType(
    {
        "survey": _article(
            "2019AJ....157..168D",
            "Dey, Arjun and Schlegel, David J. and Lang, Dustin and others",
            "Overview of the DESI Legacy Imaging Surveys",
            _AJ,
            "157",
            "168",
            "2019",
            "10.3847/1538-3881/ab089d",
            "Dey et al. 2019, AJ, 157, 168",
        ),
        "unwise": _article(
            "2014AJ....147..108L",
            "Lang, Dustin",
            "unWISE: Unblurred Coadds of the WISE Imaging",
            _AJ,
            "147",
            "108",
            "2014",
            "10.1088/0004-6256/147/5/108",
            "Lang 2014, AJ, 147, 108",
        ),
        "datalab": _article(
            "2020A&C....3300411N",
            "Nikutta, R. and Fitzpatrick, M. and Scott, A. and Weaver, B. A.",
            "Data Lab: A community science platform",
            "Astronomy and Computing",
            "33",
            "100411",
            "2020",
            "10.1016/j.ascom.2020.100411",
            "Nikutta et al. 2020, Astronomy and Computing, 33, 100411",
        ),
        "astroquery": _article(
            "2019AJ....157...98G",
            "Ginsburg, Adam and Sip{\\H{o}}cz, Brigitta M. and Brasseur, C. E. and others",
            "astroquery: An Astronomical Web-querying Package in Python",
            _AJ,
            "157",
            "98",
            "2019",
            "10.3847/1538-3881/aafc33",
            "Ginsburg et al. 2019, AJ, 157, 98",
        ),
        "astropy": _article(
            "2022ApJ...935..167A",
            "{Astropy Collaboration} and Price-Whelan, Adrian M. and Lim, Pey Lian and others",
            "The Astropy Project: Sustaining and Growing a Community-oriented Open-source "
            "Project and the Latest Major Release (v5.0) of the Core Package",
            "The Astrophysical Journal",
            "935",
            "167",
            "2022",
            "10.3847/1538-4357/ac7c74",
            "Astropy Collaboration 2022, ApJ, 935, 167",
        ),
    }
)
"""Papers by what they are cited for."""

SERVICES = MappingProxyType(
    {
        "survey": (
            "Images and catalogues: DESI Legacy Imaging Surveys. Copy the acknowledgement for "
            f"your kind of publication from {ACKNOWLEDGEMENT_URL} into the paper."
        ),
        "viewer": (
            "Pictures of the viewer: credit 'Legacy Surveys / D. Lang (Perimeter Institute)', "
            "with the link where it can be followed. Layers of other surveys keep their own terms."
        ),
        "unwise": (
            "WISE coadds: cite unWISE, credit 'unWISE / NASA/JPL-Caltech / D. Lang (Perimeter "
            "Institute)' for pictures, and acknowledge WISE and NEOWISE as the same page says."
        ),
        "datalab": (
            "Catalogue by TAP: acknowledge the Astro Data Lab of NSF NOIRLab, as "
            "https://datalab.noirlab.edu asks."
        ),
        "nadc": (
            "Files of the mirror in China: credit the National Astronomical Data Center (NADC)."
        ),
    }
)
"""What to acknowledge, by what was used."""

ALWAYS = ("survey", "astroquery", "astropy")


@dataclass(frozen=True)
class Citations:
    """What to cite and to acknowledge; printed, it is text to work from.

    Attributes
    ----------
    references : tuple of `Reference`
        The software last.
    acknowledgements : tuple of str
        A sentence or two each.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey
    >>> len(LegacySurvey.cite().references)
    4
    """

    references: tuple
    acknowledgements: tuple

    @property
    def bibtex(self):
        """All the BibTeX entries, a string that can be written to a ``.bib`` file."""
        return "\n\n".join(reference.bibtex for reference in self.references) + "\n"

    def __str__(self):
        cite = "\n".join(f"  {r.short}  [{r.key}]" for r in self.references)
        thank = "\n".join(f"  {sentence}" for sentence in self.acknowledgements)
        return f"Cite:\n{cite}\nAcknowledge:\n{thank}\nBibTeX: .bibtex"


def citations(used, version):
    """Return what to cite for what was used.

    Parameters
    ----------
    used : iterable of str
        Names of `SERVICES` beyond the survey itself, which always counts.
    version : str
        Version of this package.

    Returns
    -------
    Citations

    Raises
    ------
    KeyError
        If a name is not in `SERVICES`.

    Examples
    --------
    >>> from astroquery_lis.survey.citations import citations
    >>> [reference.key for reference in citations(['unwise'], '1.0').references][:2]
    ['2019AJ....157..168D', '2014AJ....147..108L']
    """
    used = {"survey", *used}
    texts = {name: SERVICES[name] for name in used}
    keys = [name for name in REFERENCES if name in used or name in ALWAYS]
    title = "{astroquery\\_lis: an astroquery client for the DESI Legacy Imaging Surveys}"
    software = Reference(
        "astroquery_lis",
        "software",
        (
            ("author", "{The astroquery\\_lis developers}"),
            ("title", title),
            ("version", version),
            ("url", "https://github.com/astroquery-lis/astroquery_lis"),
        ),
        f"astroquery_lis {version}, https://github.com/astroquery-lis/astroquery_lis",
    )
    references = (*(REFERENCES[name] for name in keys), software)
    return Citations(references, tuple(texts[name] for name in SERVICES if name in texts))
