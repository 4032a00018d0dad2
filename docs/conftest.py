"""The examples of the documentation run in a folder of their own."""

import pytest


@pytest.fixture(autouse=True)
def scratch_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
