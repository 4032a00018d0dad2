"""The examples of the documentation run in a folder of their own."""

import pytest

from astroquery_lis import sandbox

# It takes raw exposures through stage 1, again and again.
SLOW_PAGES = ("jwst_before_after.rst",)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in SLOW_PAGES:
            item.add_marker("slow")


def pytest_collection_finish(session):
    """Make the whole sky before the pages: on the way it would say so in between their lines."""
    if not session.config.option.collectonly:
        sandbox.build()


@pytest.fixture(autouse=True)
def scratch_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The pages show what is told where no proxy stands between.
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    serve, opened = sandbox.serve, []

    def remembered(**kwargs):
        opened.append(serve(**kwargs))
        return opened[-1]

    monkeypatch.setattr(sandbox, "serve", remembered)
    yield
    # A page that failed half way would leave the simulated sky to the next one.
    for server in opened:
        server.close()
