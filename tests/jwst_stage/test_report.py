"""The page about a run."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.jwst_stage import JwstStage
from astroquery_lis.jwst_stage.report import _SCRIPT_HEAD, write_report
from astroquery_lis.jwst_stage.tasks import read_record, write_record

_VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Elements, links and text of a page; refuses tags that are not closed in order."""

    def __init__(self, path):
        super().__init__()
        self.open, self.seen, self.ids, self.links, self.sources = [], [], [], [], []
        self.words = []
        self.source = Path(path).read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.seen.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if "href" in attrs else []
        self.sources += [attrs["src"]] if "src" in attrs else []
        if tag == "img":
            assert attrs.get("alt")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data + " ")


@pytest.fixture(scope="module")
def page(chain, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    return Page(write_report(chain.output_dir, path=path)), path


def test_every_task_is_told_of_with_its_steps_and_parameters(page, chain):
    page, _ = page
    for task in chain.plan.tasks:
        record = read_record(chain.output_dir, task.name)
        assert page.text.count(task.name) >= 2
        for product in record.products:
            assert product["sha256"] in page.text
        for step in record.steps:
            assert f"{step['step']} {step['seconds']:.2f} s" in page.text
        for reference in record.references.values():
            assert reference in page.text
        for line in record.checks:
            assert line["message"] in page.text
    assert "rejection_threshold=" in page.text
    # What the run decides by the memory there is; of places it says nothing.
    assert "in_memory=" in page.text
    assert "output_dir=" not in page.text
    assert chain.observation.crds_context in page.text
    assert "Every step that ran had its effect." in page.text


def test_it_needs_nothing_else(page, chain):
    page, _ = page
    assert "script" not in page.seen
    assert all(source.startswith("data:image/") for source in page.sources)
    # One for each image, and the mosaic once more.
    assert len(page.sources) == len(chain.plan.tasks) + 1
    assert not any(link.startswith(("http", "//", "/")) for link in page.links)
    assert len(page.source) < 1_500_000


def test_its_links_lead_somewhere(page):
    page, path = page
    assert len(set(page.ids)) == len(page.ids)
    files = [link for link in page.links if not link.startswith("#")]
    assert len(files) > 10
    assert any(link.endswith(".log") for link in files)
    for link in files:
        assert (path.parent / unquote(link)).exists(), link
    for link in page.links:
        assert not link.startswith("#") or link[1:] in page.ids


def test_it_is_beside_the_products_unless_another_place_is_named(chain_copy):
    told = JwstStage.report(chain_copy)
    assert told == str(chain_copy / "report.html")
    links = [unquote(link) for link in Page(told).links]
    assert any(link.startswith("stage3/") for link in links)
    first = Path(told).read_bytes()
    assert JwstStage.report(chain_copy) == told
    assert Path(told).read_bytes() == first
    assert [p.name for p in chain_copy.glob(".*")] == [".jwst_stage"]


def test_what_went_wrong_stands_on_top(chain, chain_copy):
    first, last = chain.plan.tasks[0].name, chain.plan.tasks[-1].name
    record = read_record(chain_copy, last)
    bad = {
        "check": "tweakreg",
        "outcome": "no effect",
        "message": "2 of 3 <groups> aligned",
        "action": "Lower tweakreg.minobj",
    }
    write_record(chain_copy, replace(record, checks=[*record.checks, bad]))
    (chain_copy / first).unlink()
    shutil.copy(__file__, chain_copy / first)
    page = Page(write_report(chain_copy))
    assert "What needs attention" in page.text
    assert "tweakreg: no effect" in page.text
    assert "2 of 3 <groups> aligned. Lower tweakreg.minobj" in page.text
    assert "&lt;groups&gt;" in page.source
    # A product that cannot be shown has no picture, and the page is made all the same.
    assert len(page.sources) == len(chain.plan.tasks)


def test_without_a_run_there_is_no_page(tmp_path, chain):
    with pytest.raises(InvalidRequestError, match="no plan was run there"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(InvalidRequestError, match="is a directory"):
        write_report(chain.output_dir, path=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it_without_scrolling_sideways(page, tmp_path, width):
    """The page is put into a frame of the width, since a window has a least one of its own."""
    page, path = page
    probe = tmp_path / "probe.html"
    source = path.read_text(encoding="utf-8").replace("'unsafe-inline'", "'unsafe-inline' *")
    source = source.replace("default-src 'none';", "default-src * 'unsafe-inline' data:;")
    measure = (
        "<script>addEventListener('load',()=>{document.querySelectorAll('details')"
        ".forEach(d=>d.open=true);const e=document.documentElement;parent.postMessage("
        "[e.scrollWidth,e.clientWidth,[...document.images].filter(i=>i.naturalWidth).length],'*')"
        "})</script></body>"
    )
    (tmp_path / "inner.html").write_text(
        source.replace('loading="lazy"', "").replace("</body>", measure), encoding="utf-8"
    )
    probe.write_text(
        "<!doctype html><body><script>addEventListener('message',e=>{"
        "document.body.dataset.told=e.data.join(' ')})</script>"
        f'<iframe src="inner.html" width="{width}" height="900"></iframe></body>'
    )
    quiet = ("gpu", "quic", "background-networking", "component-update", "sync")
    flags = ["--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{w}" for w in quiet)]
    said = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
         "--virtual-time-budget=5000", probe.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    ).stdout  # fmt: skip
    told = said.partition('data-told="')[2].partition('"')[0]
    scroll, client, images = map(int, told.split())
    assert scroll <= client <= width
    assert images == len(page.sources)


STAND_IN = """
import json
from pathlib import Path

class Image3Pipeline:
    @staticmethod
    def call(source, *, output_dir, **options):
        Path(output_dir, "made.json").write_text(json.dumps([Path(source).read_text(), options]))
"""


def test_the_script_hands_associations_to_the_pipelines(tmp_path):
    # The real pipelines are called by the slow tests; here it is the script that is tried.
    package = tmp_path / "jwst"
    package.mkdir()
    for name, text in (("__init__", ""), ("step", ""), ("pipeline", STAND_IN)):
        (package / f"{name}.py").write_text(text)
    (tmp_path / "member.fits").write_bytes(b"")
    script = _SCRIPT_HEAD.read_text().format(made=str(tmp_path), variables={})
    script += 'call("Image3Pipeline", "out/a_i2d.fits", ["member.fits"], {"resample": {}}, '
    script += '{"name": "a_asn.json", "content": {"products": []}})\n'
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    content, options = json.loads((tmp_path / "out" / "made.json").read_text())
    assert json.loads(content) == {"products": []}
    assert options == {"save_results": True, "steps": {"resample": {}}}
