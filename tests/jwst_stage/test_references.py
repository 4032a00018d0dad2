"""References before any work: pinned, asked once per set-up, listed, fetched, or refused."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from astroquery_lis.exceptions import CrdsUnavailable, InvalidRequestError, OptionalDependencyError
from astroquery_lis.jwst_stage import pipelines
from astroquery_lis.jwst_stage.crds_cache import (
    CrdsEnvironment,
    Recall,
    closure,
    mapping_path,
    server_config_path,
)
from astroquery_lis.jwst_stage.parameters import effective
from astroquery_lis.jwst_stage.planning.make_plan import make_plan
from astroquery_lis.jwst_stage.references import prefetch, resolve
from astroquery_lis.sandbox.jwst.crds import serve_crds

PMAP = "jwst_0001.pmap"
FLAT_RMAP = "jwst_nircam_flat_0001.rmap"


@pytest.fixture(scope="module")
def plan(observation):
    steps = {"jump.four_group_rejection_threshold": 7}
    return make_plan(
        observation.uncals, steps=steps, preset="nircam-imaging", check_associations=False
    )


@pytest.fixture(scope="module")
def resolution(plan, observation):
    """The context is asked for as the newest one that the cache knows."""
    return resolve(plan, CrdsEnvironment(str(observation.crds_path)), offline=True)


@pytest.fixture
def cache(observation, tmp_path):
    """A cache of our own, to spoil."""
    return shutil.copytree(observation.crds_path, tmp_path / "cache")


@pytest.fixture
def service(sky, observation):
    with serve_crds(sky, observation.crds_path) as service:
        service.builds[version("jwst")] = PMAP
        yield service


def stage(plan, number):
    return [task.name for task in plan.tasks if task.stage == number]


def test_the_context_is_pinned_by_name(resolution, observation):
    assert resolution.context == PMAP
    assert resolution.environment == CrdsEnvironment(str(observation.crds_path), PMAP, "")
    assert resolution.missing == ()


def test_references_have_name_place_and_digest(resolution, plan):
    flat = resolution.references[stage(plan, 2)[0]]["flat"]
    assert Path(flat["path"]).name == flat["name"]
    data = Path(flat["path"]).read_bytes()
    assert flat["sha1"] == hashlib.sha1(data).hexdigest()
    assert (flat["bytes"], flat["present"]) == (len(data), True)
    assert resolution.references[stage(plan, 2)[0]]["sflat"]["name"] == "N/A"
    assert "flat" not in resolution.references[stage(plan, 1)[0]]


def test_a_set_up_is_asked_for_once(resolution, plan):
    # The four dithers have one set-up: their answers are one and the same object.
    assert len({id(resolution.references[name]) for name in stage(plan, 1)}) == 1
    assert len({id(found) for found in resolution.parameters.values()}) == 3
    (configuration,) = plan.configurations
    assert {"dark", "flat", "apcorr"} <= set(resolution.references[configuration])
    dark = resolution.files()[resolution.references[configuration]["dark"]["name"]]
    assert dark["tasks"] == stage(plan, 1)
    assert dark["types"] == {"dark"}


@pytest.mark.slow
def test_parameters_are_those_of_the_pipeline_itself(resolution, plan, observation):
    """The oracle is stpipe: how `call` puts together CRDS's parameters and those that are given."""
    code = (
        "import json, sys, jwst.pipeline\n"
        "found = {}\n"
        "for name, path, steps in json.load(sys.stdin):\n"
        "    cls = getattr(jwst.pipeline, name)\n"
        "    config, _ = cls.build_config(path, steps=steps)\n"
        "    found[name] = cls.from_config_section(config).get_pars()['steps']\n"
        "print(json.dumps(found))\n"
    )
    tasks = {task.pipeline: task for task in plan.tasks}
    asked = [(name, str(observation.uncals[0]), task.steps) for name, task in tasks.items()]
    environment = {**os.environ, "CRDS_PATH": str(observation.crds_path), "CRDS_CONTEXT": PMAP}
    environment.pop("CRDS_SERVER_URL", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(asked),
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    for name, expected in json.loads(done.stdout.splitlines()[-1]).items():
        assert resolution.parameters[tasks[name].name] == expected


def test_parameters_come_from_all_that_have_a_say(resolution, plan):
    jump = resolution.parameters[stage(plan, 1)[0]]["jump"]
    # From CRDS, from the preset, from steps=, and the step's own.
    assert jump["rejection_threshold"] == 5.0
    assert jump["expand_large_events"] is True
    assert jump["four_group_rejection_threshold"] == 7.0
    assert jump["three_group_rejection_threshold"] == 6.0


def test_the_base_is_what_would_hold_otherwise(resolution, plan):
    base = resolution.base[stage(plan, 1)[0]]["jump"]
    assert base["rejection_threshold"] == 5.0
    assert base["expand_large_events"] is False
    assert base["four_group_rejection_threshold"] == 5.0


def test_effective_parameters_tell_who_said_so(resolution, plan):
    table = effective(plan, resolution)
    assert table.colnames == ["task", "step", "parameter", "value", "origin"]
    assert table.meta["context"] == PMAP
    rows = {
        (row["task"], row["step"], row["parameter"]): (row["value"], row["origin"]) for row in table
    }
    rate, mosaic = stage(plan, 1)[0], stage(plan, 3)[0]
    assert rows[rate, "jump", "rejection_threshold"] == ("5.0", "crds")
    assert rows[rate, "jump", "expand_large_events"] == ("True", "preset")
    assert rows[rate, "jump", "four_group_rejection_threshold"] == ("7.0", "steps")
    assert rows[rate, "jump", "min_sat_area"] == ("1.0", "default")
    assert rows[mosaic, "tweakreg", "minobj"] == ("4", "crds")
    # Nothing is said of what a skipped step would have done.
    assert rows[rate, "clean_flicker_noise", "skip"] == ("True", "default")
    assert (rate, "clean_flicker_noise", "n_sigma") not in rows
    assert (rate, "jump", "maximum_cores") not in rows


def test_what_the_plan_adds_is_the_plans(resolution, plan):
    grid = {"resample": {"rotation": 0.0}}
    tasks = tuple(
        replace(task, steps={**task.steps, **grid}) if task.stage == 3 else task
        for task in plan.tasks
    )
    other = replace(plan, tasks=tasks)
    table = effective(other, resolution)
    chosen = table[(table["step"] == "resample") & (table["parameter"] == "rotation")]
    assert list(chosen["origin"]) == ["plan"]


def test_everything_is_fetched_once_into_an_empty_cache(
    sky, service, plan, observation, resolution, tmp_path, monkeypatch
):
    environment = CrdsEnvironment(str(tmp_path / "cache"), "", service.url)
    table = prefetch(plan, environment, max_workers=3)
    assert table.meta["context"] == PMAP
    assert set(table["Status"]) == {"COMPLETE"}
    by_name = {str(row["name"]): row for row in table}
    # Parameter files too.
    assert by_name["jwst_nircam_pars-jumpstep_0001.asdf"]["kind"] == "parameters"
    assert by_name[PMAP]["kind"] == "mapping"
    assert {row["name"] for row in table if row["kind"] != "mapping"} == set(resolution.files())
    for name, row in by_name.items():
        (original,) = Path(observation.crds_path).rglob(name)
        assert Path(row["Local Path"]).read_bytes() == original.read_bytes()
        assert row["URL"].startswith(service.url)
        assert sum(record.path.endswith("/" + name) for record in sky.requests) == 1
    assert not [path for path in Path(environment.path).rglob("*") if ".part" in path.name]
    # What was written serves without a server, and is the same, also where the server's newest
    # context, which CRDS notes in the cache, is another one than that of the installed pipeline.
    noted = server_config_path(environment.path)
    noted.write_text(noted.read_text().replace(PMAP, "jwst_0002.pmap"))
    sky.requests.clear()
    monkeypatch.setattr(pipelines, "ask", None)
    # Nothing that CRDS reads has changed, and it is not asked again.
    again = prefetch(plan, environment, offline=True)
    assert set(again["Status"]) == {"CACHED"}
    assert list(again["sha1"]) == list(table["sha1"])
    assert len(sky.requests) == 0


def test_answers_are_kept_until_something_that_was_read_changes(cache, tmp_path):
    mapping, pars = mapping_path(cache, FLAT_RMAP), tmp_path / "pars.asdf"
    pars.touch()
    entry = {"name": pars.name, "path": str(pars)}
    answer = {"missing": [], "errors": [], "parameter_references": {"pars-jumpstep": entry}}
    answers = {"one": answer}
    environment = CrdsEnvironment(str(cache), PMAP)

    def recall(**kwargs):
        return Recall(replace(environment, **kwargs), [FLAT_RMAP], {"one": {}})

    assert recall().get() is None
    recall().put(answers)
    assert recall().get() == answers
    assert recall(context="jwst_0002.pmap").get() is None
    os.utime(pars, (1, 1))
    assert recall().get() is None
    recall().put(answers)
    assert recall().get() == answers
    os.utime(mapping, (1, 1))
    assert recall().get() is None
    # What is incomplete is asked for again.
    recall().put({"one": {**answers["one"], "missing": ["x"]}})
    assert recall().get() is None


def test_what_is_missing_or_damaged_is_listed_offline_and_mended_online(
    sky, service, plan, cache, resolution, observation
):
    task = stage(plan, 2)[0]
    flat = resolution.references[task]["flat"]["name"]
    dark = resolution.references[stage(plan, 1)[0]]["dark"]["name"]
    pars = "jwst_nircam_pars-tweakregstep_0001.asdf"
    folder = cache / "references" / "jwst" / "nircam"
    (folder / flat).unlink()
    (folder / pars).unlink()
    (folder / dark).write_bytes((folder / dark).read_bytes()[:-2880])
    environment = CrdsEnvironment(str(cache), PMAP, service.url)
    with pytest.raises(CrdsUnavailable, match="3 reference files are not in the CRDS") as caught:
        prefetch(plan, environment, offline=True)
    assert set(caught.value.missing) == {flat, dark, pars}
    said = str(caught.value)
    assert f"{dark} (dark, truncated)" in said
    assert f"{flat} (flat)" in said
    assert "set crds_server_url" in said
    assert len(sky.requests) == 0
    table = prefetch(plan, environment)
    fetched = [str(row["name"]) for row in table if row["Status"] == "COMPLETE"]
    assert sorted(fetched) == sorted([flat, dark, pars])
    for name in fetched:
        (original,) = Path(observation.crds_path).rglob(name)
        assert (folder / name).read_bytes() == original.read_bytes()


@pytest.mark.slow
def test_a_set_up_without_a_reference_is_told_by_its_values(plan, observation):
    (key,) = plan.configurations
    changed = {**plan.configurations[key], "META.INSTRUMENT.DETECTOR": "NRCB2"}
    other = replace(plan, configurations={key: changed})
    with pytest.raises(CrdsUnavailable, match=f"The CRDS context {PMAP} has no reference") as c:
        resolve(other, CrdsEnvironment(str(observation.crds_path), PMAP))
    said = str(c.value)
    assert f"- dark for {stage(plan, 1)[0]} and 3 more: " in said
    assert "META.INSTRUMENT.DETECTOR=NRCB2" in said
    assert "override_<type>" in said


def test_a_new_context_and_an_override_change_what_they_name(plan, cache, resolution, tmp_path):
    from astroquery_lis.sandbox.jwst.reference_files import add_context

    context = add_context(cache, ["flat"])
    override = shutil.copy(next(cache.rglob("jwst_nircam_photom_0001.fits")), tmp_path / "own.fits")
    name = stage(plan, 2)[0]
    steps = {"photom": {"override_photom": str(override)}}
    tasks = tuple(replace(t, steps=steps) if t.name == name else t for t in plan.tasks)
    found = resolve(replace(plan, tasks=tasks), CrdsEnvironment(str(cache), context))
    assert found.context == context

    def differing(task):
        old, new = resolution.references[task], found.references[task]
        assert set(old) == set(new)
        return {
            t for t in old if (old[t]["name"], old[t]["sha1"]) != (new[t]["name"], new[t]["sha1"])
        }

    assert {t: differing(t) for t in stage(plan, 1)} == {t: set() for t in stage(plan, 1)}
    other = stage(plan, 2)[1]
    assert differing(other) == {"flat"}
    assert found.references[name]["photom"]["name"] == "own.fits"
    assert found.references[name]["photom"]["path"] == str(override)
    assert found.references[name]["photom"]["sha1"]


def test_a_cache_that_is_not_there(plan, tmp_path):
    with pytest.raises(CrdsUnavailable, match=r"There is no CRDS cache /.*/none\. To mend it, set"):
        resolve(plan, CrdsEnvironment(str(tmp_path / "none")))


def test_a_directory_that_is_no_cache(plan, tmp_path):
    with pytest.raises(CrdsUnavailable, match="is not a CRDS cache that can be used") as caught:
        resolve(plan, CrdsEnvironment(str(tmp_path)))
    assert caught.value.missing == ("server_config",)
    assert "set crds_server_url" in str(caught.value)
    # A context by name does not help: CRDS would end the process.
    with pytest.raises(CrdsUnavailable, match=f"1 mappings .* {PMAP}"):
        resolve(plan, CrdsEnvironment(str(tmp_path), PMAP))


@pytest.mark.slow
def test_what_crds_ends_the_process_for_is_an_error_here(tmp_path, plan):
    (parameters,) = plan.configurations.values()
    environment = CrdsEnvironment(str(tmp_path), PMAP).variables(readonly=True)
    group = {"parameters": parameters, "pipeline": "Image2Pipeline", "steps": {}}
    with pytest.raises(CrdsUnavailable, match="could not go on"):
        pipelines.ask("references:resolve_in_process", {"groups": {"one": group}}, environment)


@pytest.mark.parametrize(
    ("context", "said"),
    [("jwst_7777.pmap", "jwst_7777.pmap"), ("jwst-2024-05-01", "cannot be told without a CRDS")],
)
def test_a_context_that_is_not_there(plan, observation, context, said):
    with pytest.raises(CrdsUnavailable, match=said):
        resolve(plan, CrdsEnvironment(str(observation.crds_path), context), offline=True)


def test_mappings_that_are_missing_or_spoilt_are_listed(plan, cache):
    for name in (FLAT_RMAP, "jwst_nircam_dark_0001.rmap"):
        mapping_path(cache, name).unlink()
    gain = mapping_path(cache, "jwst_nircam_gain_0001.rmap")
    gain.write_text(gain.read_text().replace("NRCALONG", "NRCBLONG"))
    photom = mapping_path(cache, "jwst_nircam_photom_0001.rmap")
    photom.write_text(photom.read_text()[:200])
    with pytest.raises(CrdsUnavailable, match="4 mappings") as caught:
        resolve(plan, CrdsEnvironment(str(cache), PMAP))
    assert caught.value.missing == (
        "jwst_nircam_dark_0001.rmap",
        FLAT_RMAP,
        gain.name,
        photom.name,
    )
    needed, missing = closure(cache, PMAP, {"NIRCAM"})
    assert {name: what for name, what in missing.items() if what == "damaged"}.keys() == {
        gain.name,
        photom.name,
    }
    assert {PMAP, "jwst_nircam_0001.imap"} <= set(needed)


def test_an_instrument_without_rules(observation):
    with pytest.raises(CrdsUnavailable, match="no rules for the instrument 'MIRI'; it has them"):
        closure(observation.crds_path, PMAP, {"MIRI"})


def test_spoilt_mappings_are_fetched_again(sky, service, plan, cache, monkeypatch):
    """Up to where CRDS is asked, which another test does."""
    from astroquery_lis.jwst_stage.references import _Resolver

    path = mapping_path(cache, FLAT_RMAP)
    whole = path.read_text()
    path.write_text(whole.replace("NRCALONG", "NRCBLONG"))
    server_config_path(cache).unlink()
    resolver = _Resolver(plan, CrdsEnvironment(str(cache), PMAP, service.url), offline=False)
    groups, members = resolver._groups()
    assert sorted(len(tasks) for tasks in members.values()) == [1, 4, 4]
    resolver._mappings(PMAP, groups)
    resolver._config()
    assert path.read_text() == whole
    assert list(resolver.fetched) == [FLAT_RMAP]
    assert server_config_path(cache).exists()


def test_a_server_that_does_not_answer(sky, service, plan, cache):
    sky.faults.add("refuse", "/crds/*", times=None)
    environment = CrdsEnvironment(str(cache), "", service.url)
    with pytest.raises(CrdsUnavailable, match="Name one with crds_context .the cache has jwst_0"):
        resolve(plan, environment)
    server_config_path(cache).unlink()
    with pytest.raises(CrdsUnavailable, match="is empty, and its server does not answer"):
        resolve(plan, replace(environment, context=PMAP))
    mapping_path(cache, PMAP).unlink()
    with pytest.raises(CrdsUnavailable, match="the CRDS server cannot be asked for them") as caught:
        resolve(plan, replace(environment, context=PMAP))
    assert caught.value.missing == (PMAP,)


def test_the_way_out_without_a_network_is_not_that_of_the_survey(plan, cache):
    environment = CrdsEnvironment(str(cache), "", "http://127.0.0.1:9")
    with pytest.raises(CrdsUnavailable, match="connection refused.*Name one with") as caught:
        resolve(plan, environment)
    assert "mirror=" not in str(caught.value)


def test_a_cache_that_cannot_be_written(service, plan, tmp_path):
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the cache should be")
    environment = CrdsEnvironment(str(blocked), PMAP, service.url)
    with pytest.raises(CrdsUnavailable, match="set crds_path or crds_server_url") as caught:
        resolve(plan, environment)
    assert "Cannot write" in str(caught.value)
    assert caught.value.missing == (PMAP,)


def test_a_missing_pipeline_is_told_with_the_extra(plan, monkeypatch):
    monkeypatch.setattr(pipelines, "find_spec", lambda name: None)
    with pytest.raises(OptionalDependencyError, match=r"pip install (-e )?'.*\[jwst\]'"):
        resolve(plan, CrdsEnvironment("/nowhere"))


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4"])
def test_max_workers_is_a_positive_number(plan, value):
    with pytest.raises(InvalidRequestError, match="max_workers"):
        prefetch(plan, CrdsEnvironment("/nowhere"), max_workers=value)
