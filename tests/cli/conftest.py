"""The command in this process and in a shell, on the embedded sky."""

import io
import json
import os
import subprocess
import sys
from collections import namedtuple

import pytest
from astropy.coordinates import name_resolve

from astroquery_lis import _conf, cli

Answer = namedtuple("Answer", "code out err")

COMMAND = f"{sys.executable} -m astroquery_lis"


@pytest.fixture
def scene(sky, tmp_path, monkeypatch):
    """The embedded sky, as the configuration of this process and of those that it starts."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "mirror": sky.mirror_url,
        "viewer_url": sky.viewer_url,
        "tap_url": sky.tap_url,
        "cache_dir": str(tmp_path / "cache"),
    }
    with _conf.override(**settings), name_resolve.sesame_url.set([sky.sesame_url]):
        yield sky


@pytest.fixture
def run(scene, capfd, monkeypatch):
    """Run the command in this process: ``run('url', '1', '2').out``."""

    def run(*words, stdin=None):
        if stdin is not None:
            data = stdin.encode() if isinstance(stdin, str) else stdin
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        capfd.readouterr()
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as caught:
            code = caught.code
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert all(
            line.startswith(("astroquery-lis: ", "usage: ", "   ")) for line in err.splitlines()
        ), err
        return Answer(code, out, err)

    return run


@pytest.fixture
def run_json(run):
    """Run the command with ``--json`` and return its exit code and the document."""

    def run_json(*words, **kwargs):
        at = 2 if words[0] in ("cache", "jwst") else 1
        answer = run(*words[:at], "--json", *words[at:], **kwargs)
        document = json.loads(answer.out)
        assert document["exit_code"] == answer.code
        return answer.code, document

    return run_json


@pytest.fixture
def shell(scene):
    """Run a line of bash in which ``$LIS`` is the command."""

    path = os.pathsep.join(filter(None, sys.path))

    def shell(line, **kwargs):
        done = subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            check=False,
            timeout=120,
            env={**os.environ, "LIS": COMMAND, "PYTHONPATH": path},
            **kwargs,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return Answer(done.returncode, done.stdout, done.stderr.decode())

    return shell
