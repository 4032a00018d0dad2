"""The demo, as a shell runs it."""

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from astroquery_lis import cli, demo
from astroquery_lis.demo import SURVEY_JOBS, section_of


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.text, self.external, self.lines = [], [], [], []
        self._tags = []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self._tags.append(tag)
        if tag == "img":
            self.images.append(attrs["src"])
        for name in ("src", "href"):
            if attrs.get(name, "").startswith("http"):
                self.external.append(attrs[name])

    def handle_endtag(self, tag):
        while self._tags and self._tags.pop() != tag:
            pass

    def handle_data(self, data):
        self.text.append(data)
        # Cards of a header are shown below a summary.
        if self._tags[-1:] == ["pre"] and "details" not in self._tags:
            self.lines.append(data)


def _parsed(text):
    page = _Page()
    page.feed(text)
    assert all(image.startswith("data:image/") for image in page.images)
    assert page.external == []
    return page


def test_every_job_of_the_survey_has_its_section(scene):
    pytest.importorskip("PIL")
    said = []
    shown = "".join(section_of(*job, scene, said.append) for job in SURVEY_JOBS)
    page = _parsed(shown)
    assert len(page.images) == 2 * len(demo.SCENES) + 2 + 3 + 2 + 2 + 1
    captions = re.findall("<figcaption>(.*?)</figcaption>", shown)
    assert len(captions) == len(page.images)
    assert all(re.search(r"\d+ × \d+ px, \d+″ × \d+″, .*(nanomaggy|flux)", c) for c in captions)
    # Plots have axes, and a sheet has many places.
    assert shown.count('<g class="sky">') == len(page.images) - 3
    text = " ".join(page.text)
    assert "BRICK4" in text
    assert "dr9/north" in text
    assert "the two: 0 nanomaggy" in text
    assert len(said) == len(demo.SCENES) + 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_demo_writes_a_page_that_stands_alone(tmp_path):
    pytest.importorskip("PIL")
    run = subprocess.run(
        [sys.executable, "-m", "astroquery_lis", "demo", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    path = tmp_path / "out" / "index.html"
    assert run.stdout.strip().endswith(str(path))
    page = _parsed(path.read_text())
    text = " ".join(page.text)
    assert "the two: 0 nanomaggy" in text
    copied = "\n".join(page.lines)
    if "stage" in copied:
        copied += '\nassert len(match.matches) == 12 and set(manifest["Status"]) == {"CACHED"}'
    subprocess.run([sys.executable, "-c", copied], cwd=path.parent, check=True)
    if importlib.util.find_spec("jwst"):
        assert "12 sources are in both" in text
        offsets = re.search(r"JWST is dRA cos\(Dec\) ([-+.\d]+) mas, dDec ([-+.\d]+) mas", text)
        assert max(abs(float(value)) for value in offsets.groups()) < 10
        for name in ("field.html", "reduced/report.html"):
            assert _parsed((tmp_path / "out" / name).read_text()).text
    else:
        assert "[jwst]" in text


def test_an_unusable_folder_is_an_error_without_a_traceback(tmp_path, capsys):
    pytest.importorskip("PIL")
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.startswith("astroquery-lis: ")
