"""`LegacySurvey.cite`: what to cite for what was used."""

import re

import astropy.units as u
import pytest
from astropy.io import fits
from astropy.table import Table

from astroquery_lis import LegacySurvey, __version__
from astroquery_lis.client.about import references
from astroquery_lis.exceptions import InvalidRequestError


def _keys(citations):
    return {reference.key for reference in citations.references}


def test_the_survey_and_the_software_are_always_cited():
    cited = LegacySurvey.cite()
    survey, astroquery, astropy, this = cited.references
    assert "10.3847/1538-3881/ab089d" in survey.bibtex
    assert "10.3847/1538-3881/aafc33" in astroquery.bibtex
    assert "10.3847/1538-4357/ac7c74" in astropy.bibtex
    assert f"version = {{{__version__}}}" in this.bibtex
    assert "https://www.legacysurvey.org/acknowledgment/" in str(cited)
    assert all(reference.short in str(cited) for reference in cited.references)
    assert len(cited.acknowledgements) == 1


def test_bibtex_is_well_formed():
    entries = [reference.bibtex for reference in references().values()]
    for entry in [*entries, LegacySurvey.cite().references[-1].bibtex]:
        assert re.match(r"@(article|software)\{[^\s,]+,\n", entry)
        assert entry.count("{") == entry.count("}")
        assert {"author", "title"} <= set(re.findall(r"^  (\w+) *= \{.*\},$", entry, re.M))
    assert LegacySurvey.cite().bibtex.count("\n@") == 3


def test_what_was_used_is_counted_in(survey, sky):
    plain = survey.get_cutout(sky.positions["field"], 8, bands="r")
    assert _keys(survey.cite(plain)) == _keys(survey.cite())
    wise = survey.get_cutout(sky.positions["field"], 8, bands="rW1")
    assert references()["unwise"].key in _keys(survey.cite(plain, wise))


def test_a_table_of_the_tap_service_brings_its_thanks(sky):
    rows = Table({"flux_r": [1.0]}, meta={"source": "tap"})
    cited = LegacySurvey.cite(rows)
    assert references()["datalab"].key in _keys(cited)
    assert any("Data Lab" in text for text in cited.acknowledgements)
    rows.meta["source"] = "files"
    assert references()["datalab"].key not in _keys(LegacySurvey.cite(rows))


def test_a_real_query_says_that_it_was_tap(sky):
    from astroquery_lis import conf

    with conf.set_temp("tap_url", sky.tap_url):
        rows = LegacySurvey.query_tractor(
            sky.positions["star"], radius=5 * u.arcsec, columns=["flux_W1"], source="tap"
        )
    assert {references()["datalab"].key, references()["unwise"].key} <= _keys(
        LegacySurvey.cite(rows)
    )


def test_the_viewer_and_the_mirror_in_china_are_thanked():
    primary = fits.PrimaryHDU()
    primary.header["SOURCE"] = "viewer"
    primary.header["LAYER"] = "unwise-neo7"
    cited = LegacySurvey.cite(fits.HDUList([primary]))
    assert any("Perimeter" in text for text in cited.acknowledgements)
    assert references()["unwise"].key in _keys(cited)
    files = Table(
        {"URL": ["https://casdc.china-vo.org/mirror/DESI/x.fits", ""], "bands": ["g", "W2"]}
    )
    cited = LegacySurvey.cite(files)
    assert any("NADC" in text for text in cited.acknowledgements)
    assert references()["unwise"].key in _keys(cited)


def test_something_else_is_refused():
    with pytest.raises(InvalidRequestError, match=r"HDUList.*not str"):
        LegacySurvey.cite("dr10")
