"""The class and the command, over one finished run of the real chain."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from astroquery_lis import cli, conf
from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.jwst_stage import JwstStage, JwstStageClass
from astroquery_lis.jwst_stage.planning import Plan

from .conftest import await_


@pytest.fixture
def command(chain, stage_cache, capfd, tmp_path, monkeypatch):
    """Run the command: ``command('plan', ...)`` returns (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)
    crds = ("--crds-path", chain.observation.crds_path, "--crds-context", "jwst_0001.pmap")

    def run(*words, references=True):
        capfd.readouterr()
        with conf.set_temp("cache_dir", stage_cache):
            try:
                words = ("jwst", *words, *(crds if references else ()))
                code = cli.main([str(word) for word in words])
            except SystemExit as caught:
                code = caught.code
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def plan_file(chain, tmp_path):
    path = tmp_path / "plan.toml"
    chain.plan.save(path)
    return path


def test_the_public_surface_is_what_it_says():
    public = {name for name in dir(JwstStageClass) if not name.startswith("_")}
    assert public == {
        "assess",
        "astrometric_reference",
        "cache_location",
        "clear_cache",
        "crds_context",
        "crds_path",
        "crds_server_url",
        "cutouts_for",
        "download_uncal",
        "field_page",
        "match_catalogs",
        "parameters",
        "plan",
        "prefetch_references",
        "query_uncal",
        "report",
        "reset_cache_location",
        "run",
        "states",
        "status",
        "timeout",
    }


def test_settings_are_those_of_the_instance_then_conf_then_the_environment(monkeypatch):
    monkeypatch.setenv("CRDS_PATH", "/environment")
    monkeypatch.setenv("CRDS_CONTEXT", "jwst_1000.pmap")
    stage = JwstStageClass()
    assert (stage.crds_path, stage.crds_context) == ("/environment", "jwst_1000.pmap")
    with conf.set_temp("crds_path", "/conf"):
        assert stage.crds_path == "/conf"
        stage.crds_path = "/instance"
        assert stage.crds_path == "/instance"
    stage.crds_path = None
    assert stage.crds_path == "/environment"
    monkeypatch.delenv("CRDS_CONTEXT")
    assert stage.crds_context == ""
    with pytest.raises(InvalidRequestError, match="crds_context='latest'"):
        stage.crds_context = "latest"
    with pytest.raises(InvalidRequestError, match="timeout=0 "):
        stage.timeout = 0


def test_a_finished_run_is_found_done_by_the_class(stage, chain):
    table = stage.states(chain.plan)
    assert set(table["state"]) == {"done"}
    references = stage.prefetch_references(chain.plan, offline=True)
    assert set(references["Status"]) == {"CACHED"}
    assert references.meta["context"] == "jwst_0001.pmap"


def test_the_catalogue_that_images_are_aligned_to_is_among_the_references(
    stage, observation, survey, tmp_path
):
    steps = {"tweakreg": {"abs_minobj": 3}}
    plan = stage.plan(observation.uncals, output_dir=tmp_path, abs_refcat="legacy", steps=steps)
    for status in ("COMPLETE", "CACHED"):
        references = stage.prefetch_references(plan, offline=status == "CACHED", survey=survey)
        *files, catalog = references
        assert catalog["Status"] == status
        assert (catalog["kind"], catalog["types"]) == ("catalog", "abs_refcat")
        assert Path(catalog["Local Path"]).stat().st_size == catalog["bytes"]
        assert {row["kind"] for row in files} >= {"mapping", "reference"}


@pytest.mark.parametrize("name", ["GAIADR3", "None"])
def test_a_catalogue_that_a_step_names_itself_is_not_made(
    stage, observation, survey, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    steps = {"F356W": {"tweakreg": {"abs_refcat": name}}}
    options = {"abs_refcat": "legacy", "steps": steps}
    plan = stage.plan(observation.uncals, output_dir=tmp_path / "reduced", **options)
    assert plan.tasks[-1].steps["tweakreg"]["abs_refcat"] == name
    references = stage.prefetch_references(plan, survey=survey)
    assert "catalog" not in references["kind"]
    assert not list(tmp_path.rglob(f"*{name}*"))


def test_what_is_no_plan_is_refused():
    with pytest.raises(InvalidRequestError, match="plan=int must be a Plan"):
        JwstStage.run(5)
    with pytest.raises(InvalidRequestError, match="names no output directory"):
        JwstStage.run(Plan())


def test_plan_of_the_command_is_the_table(command, chain, tmp_path):
    saved = tmp_path / "saved.toml"
    folder = chain.observation.uncals[0].parent
    words = ("plan", folder, "-d", chain.output_dir, "--save", saved, "--format", "csv")
    code, out, _ = command(*words, references=False)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("task,stage,pipeline,state")
    assert len(lines) == 1 + len(chain.plan.tasks)
    assert all(",done," in line for line in lines[1:])
    assert Plan.load(saved) == chain.plan


def test_a_parameter_is_set_for_one_detector_and_explained(command, chain):
    files = (*chain.observation.uncals, "-d", chain.output_dir)
    changed = ("--steps", "NRCALONG:jump.rejection_threshold=7")
    code, out, _ = command("explain", "00001_nrcalong_rate.fits", *files, *changed)
    assert code == 0
    assert "stale: jump.rejection_threshold 5.0 -> 7" in out


def test_the_command_explains_as_the_plan_does_with_every_reason(command, stage, chain, tmp_path):
    words = ("rejection_threshold", "three_group_rejection_threshold")
    words += ("four_group_rejection_threshold", "min_sat_area", "min_jump_area")
    steps = {f"jump.{word}": 7 for word in words}
    options = [part for name in steps for part in ("--steps", f"{name}=7")]
    files = (*chain.observation.uncals, "-d", chain.output_dir)
    code, out, _ = command("explain", "00001_nrcalong_rate.fits", *files, *options)
    assert code == 0
    assert all(f"jump.{word} " in out for word in words)
    plan = stage.plan(chain.observation.uncals, output_dir=chain.output_dir, steps=steps)
    name = "stage1/jw01234001001_02101_00001_nrcalong_rate.fits"
    states = stage.assess(plan)
    assert out == plan.explain(name, states) + "\n"
    assert len(states[name].reasons) == len(words)
    row = stage.states(plan)[list(states).index(name)]
    assert (row["state"], row["reason"]) == ("stale", states[name].reason)


def test_a_typing_error_is_told_with_what_was_meant(command, chain):
    words = ("plan", chain.observation.uncals[0], "--steps", "jump.rejection_treshold=5")
    code, out, err = command(*words, references=False)
    assert (code, out) == (2, "")
    assert "'rejection_threshold'" in err
    code, _, err = command("plan", "x", "--steps", "jump5", references=False)
    assert code == 2
    assert "jump.rejection_threshold=5" in err


def test_run_status_and_refs_of_a_saved_plan(command, chain, plan_file):
    code, out, err = command("run", plan_file)
    assert code == 0
    assert len(out.splitlines()) == len(chain.plan.tasks)
    assert f"{len(chain.plan.tasks)} CACHED" in err
    code, out, _ = command("status", chain.output_dir, "--json", references=False)
    assert code == 0
    assert {row["state"] for row in json.loads(out)["rows"]} == {"cached"}
    code, out, _ = command("params", plan_file, "--format", "csv")
    assert code == 0
    assert "jump,rejection_threshold,5.0,crds" in out


def test_a_run_is_summed_up_once_and_machines_get_the_manifest(command, chain, plan_file):
    number = len(chain.plan.tasks)
    code, out, err = command("run", plan_file, "--json")
    document = json.loads(out)
    assert (code, document["exit_code"]) == (0, 0)
    assert document["counts"] == {"CACHED": number}
    assert document["output_dir"] == str(chain.output_dir)
    assert [row["task"] for row in document["rows"]] == [task.name for task in chain.plan.tasks]
    _, _, err = command("status", chain.output_dir, references=False)
    assert f"is finished; {number} tasks: {number} cached" in err


def test_explain_without_a_cache_of_references_takes_those_of_the_record(
    command, chain, plan_file, tmp_path
):
    nowhere = ("--offline", "--crds-path", tmp_path / "empty")
    words = ("00001_nrcalong_rate", plan_file, *nowhere)
    code, out, err = command("explain", *words, references=False)
    assert (code, out) == (0, "stage1/jw01234001001_02101_00001_nrcalong_rate.fits: done\n")
    assert "reference files are taken to be those of the record" in err
    code, out, err = command("refs", plan_file, *nowhere, references=False)
    assert code == 4
    assert "jwst refs" in err


def test_an_exposure_that_fails_makes_the_run_partial(
    command, chain, chain_copy, tmp_path, monkeypatch
):
    (tmp_path / "corrections_of_mine.py").write_text(
        "def fussy(model, word):\n"
        "    if word in model.meta.filename:\n"
        "        raise ValueError('not this one')\n"
        "    return model\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    files = (*chain.observation.uncals[:2], "-d", chain_copy, "--stages", "1,2")
    words = (*files, "--corrections", "corrections_of_mine:fussy:word=_00001_,suffix=fussy")
    code, out, err = command("run", *words)
    assert code == 5
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert [word for word, _ in lines].count("CACHED") == 2
    assert [word for word, _ in lines].count("COMPLETE") == 2
    (failed,) = (text for word, text in lines if word == "ERROR")
    (skipped,) = (text for word, text in lines if word == "SKIPPED")
    assert "stage1/jw01234001001_02101_00001_nrcalong_fussy.fits" in failed
    assert "not this one" in failed
    assert "stage2/jw01234001001_02101_00001_nrcalong_cal.fits" in skipped
    assert "2 complete, 2 there already" in err
    code, out, err = command("status", chain_copy, references=False)
    assert code == 5
    assert "1 failed, 1 skipped" in err


@pytest.mark.slow
def test_an_interrupt_ends_the_run_and_the_same_command_goes_on(
    command, chain, stage_cache, tmp_path
):
    words = ["run", chain.observation.uncals[0], "-d", tmp_path / "out", "--stages", "1"]
    crds = ["--crds-path", chain.observation.crds_path, "--crds-context", "jwst_0001.pmap"]
    run = subprocess.Popen(
        [sys.executable, "-m", "astroquery_lis", "jwst", *map(str, [*words, *crds])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ASTROQUERY_LIS_CACHE_DIR": stage_cache},
        start_new_session=True,
    )
    await_(lambda: (tmp_path / "out/.jwst_stage/run.json").exists() or run.poll() is not None)
    # Ctrl-C reaches every process of the terminal.
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out) == (130, ""), err
    assert "the same command goes on with what is left" in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("out/stage1/*.fits"))
    code, out, _ = command(*words)
    assert (code, out.split()[0]) == (0, "COMPLETE")


def test_the_report_goes_where_it_is_told(command, chain_copy, tmp_path):
    code, out, _ = command("report", chain_copy, references=False)
    assert (code, out) == (0, f"{chain_copy}/report.html\n")
    code, out, _ = command("report", chain_copy, "-o", "page.html", references=False)
    assert (code, out) == (0, "page.html\n")
    assert "<html" in (tmp_path / "page.html").read_text(encoding="utf-8")
    code, out, err = command("report", chain_copy, "-o", "page.html", references=False)
    assert (code, out) == (2, "")
    assert "--overwrite" in err


def test_two_inputs_that_exclude_each_other_are_refused(command, plan_file):
    code, _, err = command("run", plan_file, "x.fits")
    assert code == 2
    assert "stands alone" in err
    code, _, err = command("run", "nowhere.toml")
    assert code == 2
    assert "no plan 'nowhere.toml'" in err
