"""What the package assumes of the services: all holds on the sandbox, and faults are told."""

import io
import json
import re
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable import from_table
from astropy.table import Table
from astroquery import mast

from astroquery_lis import LegacySurveyClass, _conf, conf
from astroquery_lis.cli.doctor import SERVICES, assumptions, examine, sandboxed
from astroquery_lis.cli.questions import every_tree

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def ask(scene):
    """Ask the sandbox, and return the findings by service and name of the assumption."""
    sesame = _conf.override(sesame_url=scene.sesame_url)
    with sandboxed(scene, LegacySurveyClass()) as asked, sesame:

        def ask(*only):
            findings = list(examine(asked, only))
            return {(f.assumption.service, f.assumption.name): f for f in findings}

        ask.trees = asked.trees
        yield ask


def votable(**columns):
    stream = io.BytesIO()
    from_table(Table(columns)).to_xml(stream)
    return stream.getvalue()


def cutout_on_another_grid():
    cards = [("BANDS", "r"), ("IMAGETYP", "IMAGE"), ("CD2_2", 0.3 / 3600)]
    stream = io.BytesIO()
    fits.PrimaryHDU(np.zeros((16, 16), "f4"), fits.Header(cards)).writeto(stream)
    return stream.getvalue()


COARSE = cutout_on_another_grid()
NO_COLUMNS = votable(column_name=["ls_id", "ra", "dec"])
NO_TABLES = votable(table_name=["ls_dr8.tractor", "ls_dr9.tractor"])
FAULTS = [
    ("mirrors", "address", "html", "*survey-bricks.fits.gz*", {}),
    ("mirrors", "byte ranges", "ignore_range", "*0451p000-image-r*", {}),
    ("mirrors", "byte ranges", "wrong_range", "*0451p000-image-r*", {"after": 0}),
    ("mirrors", "coadd format", "html", "*0451p000-image-r*", {"after": 1}),
    ("mirrors", "releases", "status", "*survey-bricks-dr9-north*", {"code": 404}),
    ("mirrors", "checksum lists", "html", "*.sha256sum*", {}),
    ("mirrors", "checksum lists", "flip", "*nexp-r*", {"start": 5000}),
    ("viewer", "cutout", "body", "*cutout.fits*", {"content": COARSE, "after": 0}),
    ("viewer", "native pixels", "html", "*&subimage*", {}),
    ("viewer", "picture", "html", "*cutout.jpg?ra=45*", {"after": 0}),
    ("viewer", "unknown layer", "html", "*no-layer*", {}),
    ("viewer", "unknown bands", "status", "*bands=g,r,z*", {"code": 400}),
    ("viewer", "largest size", "html", "*width=3100*", {}),
    ("viewer", "dropped invvar", "html", "*pixscale=0.6*", {}),
    ("viewer", "no coverage, FITS", "status", "*cutout.fits?ra=266*", {"code": 400}),
    ("viewer", "no coverage, JPEG", "html", "*cutout.jpg?ra=266*", {}),
    ("viewer", "PSF", "cut", "*coadd-psf*", {}),
    ("viewer", "list of bricks", "body", "*bricks/*", {"content": b'{"polys": []}'}),
    ("viewer", "list of CCDs", "body", "*ccds/*", {"content": b'{"polys": [{}]}'}),
    ("viewer", "catalogue", "html", "*cat.fits*", {}),
    ("viewer", "layers", "body", "*layer=ls-dr11&*", {"content": b"no such layer"}),
    ("tap", "tables", "body", "*/tap/sync*", {"content": NO_TABLES, "after": 0}),
    ("tap", "columns", "body", "*/tap/sync*", {"content": NO_COLUMNS, "after": 1}),
    ("tap", "box", "votable", "*/tap/sync*", {"after": 2}),
    ("tap", "limit of rows", "votable", "*/tap/sync*", {"after": 4}),
    ("mast", "columns", "body", "*column_list*", {"content": b"[]", "times": 1}),
    ("mast", "file", "status", "*post_list_products*", {"code": 404, "times": None}),
    ("mast", "file", "ignore_range", "*Download/file*", {}),
    ("crds", "context", "html", "*/crds/json/*", {}),
    ("sesame", "names", "html", "*sesame*", {}),
    ("sesame", "names", "body", "*sesame*", {"content": b"# NGC 1\n%J 1.5 +2.5 = \n"}),
]


@pytest.mark.parametrize(("service", "name", "kind", "match", "options"), FAULTS)
def test_a_fault_shows_on_its_own_line(scene, ask, service, name, kind, match, options):
    if service == "crds":
        pytest.importorskip("jwst")
    options = {"times": None, **options} if "after" not in options else options
    fault = scene.faults.add(kind, match, **options)
    findings = ask(service)
    assert fault.hits
    others = {key for key, finding in findings.items() if finding.verdict != "holds"}
    assert others == {(service, name)}
    assert findings[service, name].verdict == "differs", findings[service, name].seen


def test_a_service_without_q3c_shows_on_its_own_line(scene, ask):
    scene.tap.has_q3c = False
    try:
        findings = ask("tap")
    finally:
        scene.tap.has_q3c = True
    assert {n: f.verdict for (_, n), f in findings.items()} == {
        **dict.fromkeys(("tables", "columns", "box", "limit of rows"), "holds"),
        "Q3C": "differs",
    }


def test_a_failure_of_the_service_is_no_difference(scene, ask):
    scene.faults.add("status", "*coadd-psf*", times=None, code=503)
    verdicts = {name: f.verdict for (_, name), f in ask("viewer").items()}
    assert verdicts.pop("PSF") == "could not ask"
    assert set(verdicts.values()) == {"holds"}


def test_all_hold_on_the_sandbox(run, tmp_path):
    pytest.importorskip("jwst")
    answer = run("doctor", "--sandbox", "-o", "report.json")
    assert answer.code == 0, answer.out
    assert {line.split()[0] for line in answer.out.splitlines()} == {"holds"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["assumptions"]) == len(assumptions())
    assert {row["service"] for row in report["assumptions"]} == set(SERVICES)
    assert "astropy" in report["versions"]


def test_it_is_polite(scene, ask):
    pytest.importorskip("jwst")
    assert {finding.verdict for finding in ask().values()} == {"holds"}
    requests = list(scene.requests)
    served = len(ask.trees)
    of_mirror = [r for r in requests if r.path.startswith("/legacysurvey/")]
    # Two mirrors more, which are not asked for every release, and all trees of the first.
    live = len(requests) + 2 * (len(of_mirror) - served) + len(every_tree()) - served
    assert live < 60
    assert sum(r.bytes_sent for r in requests) < 5e6


def test_without_a_network_nothing_can_be_asked(run):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        settings = dict.fromkeys(("mirror", "viewer_url", "tap_url", "sesame_url"), url)
        services = mast.conf.set_temp("server", url), conf.set_temp("crds_server_url", url)
        with _conf.override(**settings), services[0], services[1]:
            answer = run("doctor", "-o", "report.md")
    assert answer.code == 4
    # One line for each service: what is silent is not asked again.
    assert [line.split()[3] for line in answer.out.splitlines()] == list(SERVICES)
    assert all("connection refused" in line for line in answer.out.splitlines())
    assert all(line.startswith("could not ask ") for line in answer.out.splitlines())
    rows = [line for line in Path("report.md").read_text().splitlines() if line.startswith("| ")]
    assert sum(row.endswith("| could not ask |") for row in rows) == len(assumptions())


def test_what_differs_tells_what_depends_on_it(scene, run):
    scene.faults.add("html", "*coadd-psf*", times=None)
    answer = run("doctor", "--only", "viewer", "-o", "report.md")
    assert answer.code == 5
    (place,) = (n for n, line in enumerate(answer.out.splitlines()) if line[:7] == "differs")
    assert "get_psf" in answer.out.splitlines()[place + 2]
    assert "viewer, PSF: get_psf depends on it." in Path("report.md").read_text()


@pytest.mark.parametrize(("flag", "notes"), [("--quiet", 0), ("--json", 1)])
def test_quiet_and_json_show_no_waiting(run, monkeypatch, flag, notes):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    answer = run("doctor", "--only", "tap", flag)
    assert answer.code == 0
    # The one note counts what holds.
    assert len(answer.err.splitlines()) == notes
    assert "asking" not in answer.err


def test_versions_print_nothing_else(run):
    answer = run("doctor", "--versions")
    assert answer.code == 0
    assert answer.err == ""
    names = [line.split()[0] for line in answer.out.splitlines()]
    assert names[:4] == ["python", "astroquery_lis", "astroquery", "astropy"]
    assert names[4:7] == ["numpy", "requests", "pyvo"]
    assert names[-1] == "platform"
    assert set(names[7:-1]) <= {"jwst"}


@pytest.mark.parametrize("name", ["report.txt", "-"])
def test_a_report_of_another_kind_is_refused_before_anything_is_asked(run, other, name):
    # A server of its own: what another test left in flight is not seen here.
    services = {"mirror": other.mirror_url, "viewer_url": other.viewer_url}
    with _conf.override(**services, tap_url=other.tap_url, sesame_url=other.sesame_url):
        answer = run("doctor", "-o", name)
    assert answer.code == 2
    assert ".md, .json" in answer.err
    assert not len(other.requests)


def test_evidence_is_of_the_kinds_that_the_page_explains():
    text = (DOCS / "live_services.rst").read_text()
    kinds = {kind.lower() for kind in re.findall(r"^\*\*(\w+)\*\*$", text, re.M)}
    for about in assumptions():
        assert set(re.sub(r" \([^)]*\)", "", about.evidence).split(", ")) <= kinds
