"""The demo, as a shell runs it."""

import subprocess
import sys
from html.parser import HTMLParser

import pytest

from astroquery_lis import cli, demo


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.text, self.external = [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img":
            self.images.append(attrs["src"])
        for name in ("src", "href"):
            if attrs.get(name, "").startswith("http"):
                self.external.append(attrs[name])

    def handle_data(self, data):
        self.text.append(data)


def test_demo_writes_a_page_that_stands_alone(tmp_path):
    pytest.importorskip("PIL")
    run = subprocess.run(
        [sys.executable, "-m", "astroquery_lis", "demo", "-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    page = tmp_path / "out" / "index.html"
    assert run.stdout.strip().endswith(str(page))
    parsed = _Page()
    parsed.feed(page.read_text())
    assert len(parsed.images) == 2 * len(demo.SCENES) + 2 + 3 + 2 + 2 + 1
    assert all(image.startswith("data:image/png;base64,") for image in parsed.images)
    assert parsed.external == []
    text = " ".join(parsed.text)
    assert "BRICK4" in text
    assert "dr9/north" in text
    assert "the two: 0 nanomaggy" in text


def test_an_unusable_folder_is_an_error_without_a_traceback(tmp_path, capsys):
    pytest.importorskip("PIL")
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "-o", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.startswith("astroquery-lis: ")
