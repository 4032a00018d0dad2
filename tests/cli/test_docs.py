"""Every command in the documentation runs, and prints what is shown there."""

import doctest
import os
import re
import shlex
import stat
import sys
from pathlib import Path

import pytest
from astroquery import mast

from astroquery_lis.cli import app
from astroquery_lis.sandbox.mast import example_files, serve_mast

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "command_line.rst"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def _examples(text):
    """Return (command, what it shows) of the console blocks of a page."""
    examples, inside = [], False
    for line in text.splitlines():
        if line.startswith(".. code-block::"):
            inside = line.endswith("console")
        elif line and not line.startswith(" "):
            inside = False
        elif inside and line.startswith("   $ "):
            examples.append([line[5:], ""])
        elif inside and line.strip() and examples:
            examples[-1][1] += line[3:] + "\n"
    return examples


@pytest.fixture
def archive(scene, tmp_path_factory):
    """The simulated MAST, with the files of the examples."""
    pytest.importorskip("keyring")
    service = serve_mast(scene, example_files(tmp_path_factory.mktemp("held")))
    with mast.conf.set_temp("server", service.url):
        yield service


@pytest.mark.slow
def test_every_command_of_the_page_runs(run, shell, archive, tmp_path):
    pytest.importorskip("PIL")
    pytest.importorskip("reproject")
    script = tmp_path / "bin" / "astroquery-lis"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m astroquery_lis "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    examples = _examples(PAGE.read_text())
    code = 0
    for command, shown in examples:
        if command == "echo $?":
            out, code = f"{code}\n", 0
        elif "|" in command or not command.startswith("astroquery-lis "):
            answer = shell(f"set -o pipefail; PATH={shlex.quote(path)}; {command}")
            out, code = answer.out.decode(), answer.code
            assert code == 0, (command, answer.err)
        else:
            answer = run(*shlex.split(command)[1:])
            out, code = answer.out, answer.code
            fails = shown == "" and "95 -30" in command
            assert code == (3 if fails else 0), (command, answer.err)
        if shown:
            checker = doctest.OutputChecker()
            assert checker.check_output(shown, out, FLAGS), f"{command}\n{out}"
    used = {command.split()[1] for command, _ in examples if command.startswith("astroquery-lis ")}
    (action,) = (a for a in app.parser()._actions if a.dest == "command")
    assert used == set(action.choices)


def _lines_of_shell(text):
    """Return the commands of the blocks of shell that do not run here, on one line each."""
    found = []
    for block in re.findall(r"^\.\. code-block:: (?:sh|bash)\n\n((?:   .*\n|\n)+)", text, re.M):
        lines = block.replace("\\\n", " ").splitlines()
        found += [match[1] for line in lines if (match := re.search(r"(astroquery-lis .*)", line))]
    return found


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.rst")), ids=lambda path: path.name)
def test_commands_that_do_not_run_here_have_words_that_there_are(path):
    for line in _lines_of_shell(path.read_text(encoding="utf-8")):
        words = shlex.split(line.removesuffix('"'), comments=True)[1:]
        options = app.parser().parse_args(words)
        assert options.command.split()[0] == words[0]


def test_the_page_tells_every_command_and_code():
    text = PAGE.read_text()
    (action,) = (a for a in app.parser()._actions if a.dest == "command")
    (jwst,) = (a for a in action.choices["jwst"]._actions if a.dest == "action")
    for name in (*action.choices, *jwst.choices):
        assert f"\n``{name}``" in text
    for code in (0, 1, 2, 3, 4, 5, 130, 141):
        assert f"\n{code:<6d}" in text
