"""The command as a whole: help, exit codes, what it says and where, and how it ends."""

import argparse
import inspect
import json
import os
import random
import shlex
import signal
import subprocess
import sys

import pytest
from astropy import log

import astroquery_lis
from astroquery_lis import LegacySurvey, LegacySurveyClass, cli
from astroquery_lis.cli import app, console
from astroquery_lis.jwst_stage import JwstStageClass

COMMANDS = (
    *("bricks", "cache", "catalogue", "covers", "crossmatch", "cutout", "cutouts", "demo"),
    *("doctor", "files"),
    *("layers", "jwst", "maps", "mirrors", "picture", "psf", "releases", "tractor", "url"),
)


def _parsers(parser=None, words=()):
    """Yield (words, parser) of every command."""
    parser = app.parser() if parser is None else parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from _parsers(child, (*words, name))
            return
    yield words, parser


def test_the_commands_are_these():
    assert sorted({words[0] for words, _ in _parsers()}) == sorted(COMMANDS)


@pytest.mark.parametrize("words", [words for words, _ in _parsers()], ids=" ".join)
def test_help_tells_every_option(run, words):
    answer = run(*words, "--help")
    assert answer.code == 0
    assert answer.err == ""
    (parser,) = (parser for found, parser in _parsers() if found == words)
    text = " ".join(answer.out.split())
    for action in parser._actions:
        assert action.help, action.dest
        for option in action.option_strings:
            assert option in answer.out
        assert " ".join((action.help % {**vars(action), "prog": ""}).split()) in text
    assert console.HELP in answer.out
    assert max(map(len, answer.out.splitlines())) < 100


OWN_OPTIONS = {
    *("--help", "--json", "--quiet", "--debug", "--timeout", "--output", "--overwrite", "--format"),
    *("--manifest", "--overwrite-manifest", "--table", "--input-format", "--dry-run", "--save"),
    *("--list-products", "--release", "--mirror", "--ra", "--dec", "--name"),
    *("--crds-path", "--crds-context", "--crds-server-url"),
}
METHODS = {
    ("cutout",): LegacySurveyClass.get_cutout,
    ("psf",): LegacySurveyClass.get_psf,
    ("picture",): LegacySurveyClass.get_picture,
    ("url",): LegacySurveyClass.viewer_url,
    ("cutouts",): LegacySurveyClass.download_cutouts,
    ("files",): LegacySurveyClass.get_brick_files,
    ("tractor",): LegacySurveyClass.query_tractor,
    ("catalogue",): LegacySurveyClass.read_catalogue,
    ("crossmatch",): LegacySurveyClass.crossmatch,
    ("covers",): LegacySurveyClass.covers,
    ("maps",): LegacySurveyClass.query_maps,
    ("cache", "clear"): LegacySurveyClass.clear_cache,
    ("jwst", "query"): JwstStageClass.query_uncal,
    ("jwst", "download"): JwstStageClass.download_uncal,
    ("jwst", "plan"): JwstStageClass.plan,
}


@pytest.mark.parametrize("words", METHODS, ids=" ".join)
def test_options_are_the_parameters_of_the_method(words):
    (parser,) = (parser for known, parser in _parsers() if known == words)
    names = {f"--{name.replace('_', '-')}" for name in inspect.signature(METHODS[words]).parameters}
    options = {option for action in parser._actions for option in action.option_strings}
    options = {name for name in options if name.startswith("--") and name not in OWN_OPTIONS}
    assert options <= {*names, *(name.replace("--", "--no-", 1) for name in names)}
    objects = {"--self", "--show-progress", "--token", "--executor", "--get-query-payload"}
    first = {action.dest for action in parser._actions if not action.option_strings}
    first = {f"--{name.replace('_', '-')}" for name in first}
    assert names - first - objects - OWN_OPTIONS - {"--allow-unknown-layer"} <= options


def test_a_default_is_that_of_the_method(run_json, monkeypatch):
    called = []
    answer = LegacySurvey.list_mirrors()
    monkeypatch.setattr(
        LegacySurveyClass, "list_mirrors", lambda self, **kwargs: called.append(kwargs) or answer
    )
    run_json("mirrors")
    run_json("mirrors", "--probe")
    assert called == [{}, {"probe": True}]


def test_the_top_has_a_help_and_a_version(run):
    answer = run("--help")
    assert answer.code == 0
    assert all(f"\n    {name}" in answer.out for name in COMMANDS)
    assert run("--version").out.startswith("astroquery_lis ")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["demo", "--size"], "unrecognized arguments: --size"),
        (["layers", "--form", "csv"], "unrecognized arguments: --form"),
        (["layers", "--format"], "argument --format: expected one argument"),
    ],
)
def test_wrong_words_exit_with_2(words, match, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: astroquery-lis")
    assert err.splitlines()[-1].startswith("astroquery-lis: ")
    assert match in err


def test_the_older_module_is_the_command_too(shell):
    answer = shell(f"{sys.executable} -m astroquery_lis bricks 190.1086 1.2005 --format csv")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.decode().splitlines()[1].startswith("1901p012,")


@pytest.mark.parametrize(
    ("line", "code", "match"),
    [
        ("cutout 95 -30", 3, "astroquery-lis: dr10 has no data at RA 95"),
        ("psf 45.1 0.1 --source bricks --mirror http://127.0.0.1:9/", 4, "astroquery-lis: "),
        ("cutouts missing.csv -d cuts", 2, "astroquery-lis: table='missing.csv' cannot be read"),
    ],
)
def test_exit_codes_in_a_shell(shell, line, code, match):
    answer = shell(f"$LIS {line}")
    assert answer.code == code
    assert answer.err.startswith(match)
    assert answer.err.count("\n") == 1


def test_layers_releases_and_mirrors(run, run_json, scene):
    code, document = run_json("layers", "sdss")
    assert code == 0
    assert document["rows"][0]["layer"] == "sdss"
    assert all("sdss" in json.dumps(row).lower() for row in document["rows"])
    assert run("layers", "nothing-like-it").code == 3
    assert len(run_json("layers")[1]["rows"]) == len(astroquery_lis.LegacySurvey.list_layers())
    releases = run("releases").out
    assert all(f"\n{name} " in releases for name in ("dr5", "dr9", "dr10", "dr11"))
    assert len(scene.requests) == 0
    in_use = [row for row in run_json("mirrors")[1]["rows"] if row["in_use"]]
    assert [row["name"] for row in in_use] == [scene.mirror_url]
    assert run("mirrors", "--format", "csv").out.startswith("name,address,")
    assert run("releases", "now").code == 2
    assert run("mirrors", "-o", "a.unknown").code == 2


def test_an_error_of_our_own_has_no_traceback_unless_asked_for(scene, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise TypeError("unforeseen")

    monkeypatch.setattr(astroquery_lis.LegacySurveyClass, "list_layers", fail)
    assert cli.main(["layers"]) == 1
    err = capsys.readouterr().err
    assert err == "astroquery-lis: TypeError: unforeseen (--debug shows where)\n"
    assert cli.main(["layers", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_logging_of_others_is_left_as_it_was(run):
    before = log.handlers[:], log.propagate
    run("layers")
    run("cutout", "1")
    assert (log.handlers, log.propagate) == before


@pytest.mark.parametrize("n_lines", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_no_words_make_a_traceback(run, scene, tmp_path, n_lines):
    (tmp_path / "a.csv").write_text("ra,dec\n45.1,0.01\n")
    (tmp_path / "b.csv").write_text('ra,dec\n"45.1,0.01\n\x00')
    (tmp_path / "c.fits").write_bytes(b"SIMPLE  =                    T")
    words = (
        *COMMANDS[:-1],
        *("45.1", "-0.01", "nan", "", " ", "-", "--", "a.csv", "b.csv", "c.fits", "none", "é"),
        *("--size", "--table", "--bands", "--format", "-o", "--json", "--radius", "--dry-run"),
        *("1arcsec", "-1e400", "fits", "r", "info", "--width", "inf arcsec", "--columns", "-d"),
    )
    scene.faults.add("refuse", times=None)
    chosen = random.Random(20)
    known = set(console.Exit)
    safe = [name for name in COMMANDS if name not in ("demo", "mirrors", "cutouts", "files")]
    for _ in range(n_lines):
        line = [chosen.choice(safe), *chosen.choices(words, k=chosen.randint(0, 6))]
        answer = run(*line, stdin=b"45.1 0.01\n")
        assert answer.code in known, line
        assert "--debug shows where" not in answer.err, (line, answer.err)


def test_a_full_disk_behind_stdout(shell):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    answer = shell("$LIS releases > /dev/full")
    assert answer.code == 1
    assert answer.err.startswith("astroquery-lis: ")
    assert "No space left" in answer.err
    assert answer.err.count("\n") == 1


def test_ctrl_c_ends_quietly_while_the_package_loads():
    script = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'astroquery_lis.cli.app': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from astroquery_lis.cli import main\n"
        "sys.exit(main(['list', 'bands']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_ends_quietly(scene, tmp_path):
    pytest.importorskip("PIL")
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        [sys.executable, "-m", "astroquery_lis", "demo", str(tmp_path / "page")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        assert process.stdout.readline().startswith("Starting the embedded sky")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""
    assert not (tmp_path / "page" / "index.html").exists()


def test_a_name_resolver_that_is_down(run, scene):
    scene.faults.add("refuse", match="/sesame/*", times=None)
    # astropy remembers names; this one is asked for nowhere else.
    answer = run("bricks", "Abell", "1")
    assert answer.code == 4
    assert "No name service could be asked for 'Abell 1'" in answer.err
    assert answer.err.count("\n") == 1


def test_quiet_and_json_on_every_command(run_json):
    lines = (
        "cutout 95 -30 -q",
        "psf 95 -30 --bands q",
        "picture 95 -30 --layer none",
        "url 1 2",
        "cutouts none.csv -d cuts",
        "bricks 1 2",
        "files 0948m300 --bands r --dry-run",
        "cache info",
        "tractor 1 2 --radius 1arcsec --dry-run",
        "crossmatch none.csv --radius 1arcsec",
        "catalogue none.fits",
        "jwst match none_cat.ecsv",
        "covers 1 2 --bands q",
        "maps 1 2 --bands q",
        "doctor --versions",
        "layers sdss",
        "releases",
        "mirrors",
    )
    assert {line.split()[0] for line in lines} == set(COMMANDS) - {"demo"}
    for line in lines:
        code, document = run_json(*shlex.split(line))
        assert ("error" in document) == (code != 0)
        words = line.split()
        assert document["command"] == " ".join(words[: 2 if words[0] in ("cache", "jwst") else 1])
