"""Whether products are whole, and whether steps that say COMPLETE had any effect."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from astroquery_lis.exceptions import StageWarning
from astroquery_lis.jwst_stage.running.verify import FAILED, NO_EFFECT, NOTE, OK, is_whole, verify
from astroquery_lis.jwst_stage.tasks import Estimate, Member, Reduction, Task, read_record

pytest.importorskip("jwst")

from stdatamodels.jwst import datamodels


class Quiet:
    """A log in which tweakreg said nothing."""

    relative_matches = absolute_matches = ()

    def __init__(self, steps=None):
        self.parameters = {"steps": steps or {}}


@pytest.fixture
def made(chain, tmp_path):
    """A function that copies what a task of the finished chain made, and gives the task too."""

    def copy(stage):
        task = next(task for task in chain.plan.tasks if task.stage == stage)
        folder = tmp_path / "made"
        folder.mkdir()
        for product in read_record(chain.output_dir, task.name).products:
            shutil.copy(chain.output_dir / product["file"], folder)
        return task, folder, folder / task.name.rpartition("/")[2]

    return copy


def outcomes(checks):
    return {line["check"]: line["outcome"] for line in checks}


def of(checks, name):
    (found,) = (line for line in checks if line["check"] == name)
    return found


def test_all_is_well(made):
    task, folder, _ = made(3)
    found = outcomes(verify(task, folder, Quiet()))
    assert found == {"whole": OK, "photom": OK, "tweakreg": OK, "source_catalog": OK}


# fits.open reads such a file as [PRIMARY, SCI] without a word.
@pytest.mark.parametrize("part", [0.01, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97, 0.999])
def test_any_truncation_is_seen(made, part):
    task, folder, path = made(1)
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(int(size * part))
    checks = verify(task, folder, Quiet())
    assert of(checks, "whole")["outcome"] == FAILED
    assert path.name in of(checks, "whole")["message"]


def test_truncation_between_extensions_is_seen(made):
    _, _, path = made(1)
    with fits.open(path) as hdul:
        ends = [hdu.fileinfo()["datLoc"] + hdu.fileinfo()["datSpan"] for hdu in hdul]
    for end in ends[-2::-1]:
        with open(path, "r+b") as file:
            file.truncate(end)
        with fits.open(path) as hdul:
            assert len(hdul) == ends.index(end) + 1
        assert is_whole(path)


def test_whole_file(made):
    _, _, path = made(1)
    assert is_whole(path) == ""


def test_missing_product(made):
    task, folder, path = made(2)
    path.unlink()
    told = of(verify(task, folder, Quiet()), "products")
    assert told["outcome"] == FAILED
    assert f"not made: {path.name}" in told["message"]


def test_missing_extension(made):
    task, folder, path = made(2)
    with fits.open(path, mode="update") as hdul:
        del hdul["DQ"]
    told = of(verify(task, folder, Quiet()), "whole")
    assert told["outcome"] == FAILED
    assert told["message"] == f"{path.name} has no DQ"


def test_nothing_but_nan(made):
    task, folder, path = made(2)
    with fits.open(path, mode="update") as hdul:
        hdul["SCI"].data[:] = np.nan
    told = of(verify(task, folder, Quiet()), "pixels")
    assert told["outcome"] == FAILED


def test_catalogue_that_cannot_be_read(made):
    task, folder, _ = made(3)
    (catalogue,) = folder.glob("*_cat.ecsv")
    catalogue.write_text(catalogue.read_text()[:300])
    told = of(verify(task, folder, Quiet()), "whole")
    assert told["outcome"] == FAILED
    assert catalogue.name in told["message"]


@pytest.mark.parametrize(
    ("flags", "outcome"), [(0, NOTE), (4, NOTE), (None, OK)], ids=["none", "all", "some"]
)
def test_jumps(made, flags, outcome):
    task, folder, path = made(1)
    if flags is not None:
        with fits.open(path, mode="update") as hdul:
            hdul["DQ"].data[:] = flags
    assert of(verify(task, folder, Quiet()), "jump")["outcome"] == outcome


def test_photom_that_did_nothing(made):
    task, folder, path = made(2)
    with fits.open(path, mode="update") as hdul:
        hdul["SCI"].header["BUNIT"] = "DN/s"
        del hdul["SCI"].header["PHOTMJSR"]
    told = of(verify(task, folder, Quiet()), "photom")
    assert told["outcome"] == NO_EFFECT
    assert "BUNIT is 'DN/s' and PHOTMJSR absent" in told["message"]
    assert "jwst_nircam_photom_" in told["action"]


def test_step_that_says_itself_that_it_failed(made):
    task, folder, path = made(3)
    fits.setval(path, "S_SKYMAT", value="FAILED")
    told = of(verify(task, folder, Quiet()), "S_SKYMAT")
    assert told["outcome"] == NO_EFFECT
    assert "overlap" in told["action"]


def test_no_catalogue_is_said_and_not_failed(made):
    task, folder, _ = made(3)
    for path in [*folder.glob("*_cat.ecsv"), *folder.glob("*_segm.fits")]:
        path.unlink()
    told = of(verify(task, folder, Quiet()), "source_catalog")
    assert told["outcome"] == NOTE
    checks = verify(task, folder, Quiet({"source_catalog": {"skip": True}}))
    assert "source_catalog" not in outcomes(checks)


def test_alignment_that_cannot_be_read_is_said(made):
    task, folder, _ = made(3)
    for path in folder.glob("*_crf.fits"):
        path.unlink()
    assert of(verify(task, folder, Quiet()), "tweakreg")["outcome"] == NOTE


def mosaics(chain, **variants):
    """Tasks of stage 3 on the calibrated files of the finished chain, with other steps each."""
    tasks = []
    original = chain.plan.tasks[-1]
    absolute = {name: str(chain.output_dir / name) for name in original.inputs}
    members = tuple(replace(member, input=absolute[member.input]) for member in original.members)
    for name, steps in variants.items():
        task = replace(
            original,
            name=f"stage3/{name}_i2d.fits",
            outputs=(f"stage3/{name}_i2d.fits",),
            inputs=tuple(absolute.values()),
            members=members,
            association={**original.association, "product": name},
            steps=steps,
            # More than any machine has.
            estimate=Estimate(memory_gb=1e6),
        )
        tasks.append(task)
    return replace(chain.plan, tasks=tuple(tasks))


def run_variants(chain, output_dir, **variants):
    from astroquery_lis.jwst_stage.running.run import run

    plan = mosaics(chain, **variants)
    twice = next(task for task in chain.plan.tasks if task.stage == 2)
    twice = replace(twice, inputs=(str(chain.output_dir / twice.name),))
    gone = replace(twice, name="stage2/gone_cal.fits", inputs=("/gone_rate.fits",))
    plan = replace(plan, tasks=(twice, gone, *plan.tasks))
    manifest = run(Reduction(plan, output_dir, chain.resolution), show_progress=False)
    rows = {row["task"][7:-9]: row for row in manifest[2:]}
    return {"twice": manifest[0], "gone": manifest[1], **rows}


@pytest.fixture(scope="module")
def trapped(chain, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # Nobody listens there, whatever network the machine has.
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")
        patch.setenv("NO_PROXY", "")
        with pytest.warns(StageWarning, match="stage3/unaligned_i2d.fits: S_TWKREG = COMPLETE"):
            return run_variants(
                chain,
                tmp_path_factory.mktemp("trapped"),
                unaligned={
                    "tweakreg": {"minobj": 500},
                    "source_catalog": {"npixels": 100000},
                },
                gaia={"tweakreg": {"abs_refcat": "GAIADR3"}},
            )


# S_TWKREG is COMPLETE though no image was aligned; only tweakwcs warns, in its log.
@pytest.mark.slow
def test_no_alignment_is_reported(trapped):
    row = trapped["unaligned"]
    assert row["Status"] == "COMPLETE"
    assert fits.getheader(row["Local Path"])["S_TWKREG"] == "COMPLETE"
    assert "tweakreg no effect" in row["checks"]
    assert "0 of 3 groups aligned to the reference" in row["Message"]
    assert "Lower tweakreg.minobj" in row["Message"]


@pytest.mark.slow
def test_mosaic_is_made_on_disk_where_memory_asks_for_it(trapped):
    row = trapped["unaligned"]
    record = read_record(row["Local Path"].removesuffix(row["task"]), row["task"])
    assert record.parameters["in_memory"] is False


# jwst calibrates such a file again without a word.
@pytest.mark.slow
def test_nothing_is_calibrated_twice(trapped):
    row = trapped["twice"]
    assert (row["Status"], row["failure"]) == ("ERROR", "data")
    assert "would calibrate it twice" in row["Message"]


@pytest.mark.slow
def test_input_that_is_gone(trapped):
    row = trapped["gone"]
    assert (row["Status"], row["failure"]) == ("ERROR", "data")
    assert "/gone_rate.fits is not there" in row["Message"]


@pytest.mark.slow
def test_no_sources_are_reported(trapped):
    assert "source_catalog note" in trapped["unaligned"]["checks"]
    assert "no source was detected" not in trapped["unaligned"]["Message"]


@pytest.mark.slow
def test_catalogue_from_the_network_without_one(trapped):
    row = trapped["gaia"]
    assert row["Status"] == "ERROR"
    assert row["failure"] == "reference"
    assert "tweakreg.abs_refcat" in row["Message"]
    assert "astrometric_reference" in row["Message"]


def stars(chain, path, offset_arcsec=0.0):
    truth = chain.observation.truth
    chosen = truth[(truth["kind"] == "star") & (truth["flux_F356W"] > 5e-6)]
    table = Table({"RA": chosen["ra"] + offset_arcsec / 3600, "DEC": chosen["dec"]})
    table.write(path, format="ascii.ecsv")
    return str(path)


# Nothing is logged of a group without sources, nor of any where the step gives up.
@pytest.mark.parametrize(("relative", "apart"), [((), 2), ((15, 14), 1), ((15, 15), 0)])
def test_groups_that_were_not_matched_to_one_another_are_told(made, relative, apart):
    task, folder, _ = made(3)
    for path in folder.glob("*_crf.fits"):
        with datamodels.open(path) as model:
            is_reference = "v2v3corr" not in model.meta.wcs.available_frames
        if is_reference:
            path.unlink()
    assert len(list(folder.glob("*_crf.fits"))) == 3
    log = Quiet({"tweakreg": {"abs_refcat": "stars.ecsv"}})
    log.relative_matches, log.absolute_matches = relative, (40,)
    told = of(verify(task, folder, log), "tweakreg")
    assert told["outcome"] == (NO_EFFECT if apart else OK)
    words = "groups were not aligned to the others" if apart else "groups aligned to stars.ecsv"
    assert f"{apart or 'all'} {'of ' * bool(apart)}3 {words}" in told["message"]


@pytest.mark.parametrize("group_id", ["", "null", None])
def test_an_empty_id_of_a_group_is_none(made, group_id):
    task, folder, _ = made(3)
    before = of(verify(task, folder, Quiet()), "tweakreg")
    assert "3 of 3 groups" in before["message"]
    for path in folder.glob("*_crf.fits"):
        with datamodels.open(path) as model:
            model.meta.group_id = "null" if group_id is None else group_id
            model.save(path)
        if group_id is None:
            # As a writer of trees has it that keeps what is not set.
            tree = path.read_bytes()
            assert tree.count(b"  group_id: 'null'") == 1
            path.write_bytes(tree.replace(b"  group_id: 'null'", b"  group_id: null  "))
    told = of(verify(task, folder, Quiet()), "tweakreg")
    # A word in quotes is an id, that of one group of them all.
    assert told["message"] == before["message"].replace(*("3 of 3", "0 of 0") if group_id else "  ")


@pytest.mark.slow
def test_absolute_alignment(chain, tmp_path):
    found = {"abs_minobj": 5, "abs_fitgeometry": "shift", "abs_searchrad": 1.0,
             "abs_separation": 0.5, "abs_tolerance": 0.3, "abs_use2dhist": False}  # fmt: skip
    good, bad = stars(chain, tmp_path / "good.ecsv"), stars(chain, tmp_path / "bad.ecsv", 900.0)
    with pytest.warns(StageWarning, match=r"not aligned to bad\.ecsv"):
        rows = run_variants(
            chain,
            tmp_path / "reduced",
            good={"tweakreg": {"abs_refcat": good, **found}},
            bad={"tweakreg": {"abs_refcat": bad, **found}},
            apart={"tweakreg": {"abs_refcat": good, "minobj": 500, **found}},
        )
    assert "tweakreg ok" in rows["good"]["checks"]
    assert "tweakreg no effect" in rows["bad"]["checks"]
    assert "5 needed (abs_minobj)" in rows["bad"]["Message"]
    assert "covers the field" in rows["bad"]["Message"]
    # All are moved to the catalogue together, whether they fit one another or not.
    assert "tweakreg no effect" in rows["apart"]["checks"]
    assert "were not aligned to the others" in rows["apart"]["Message"]
    assert "fewer than 500 sources matched (minobj)" in rows["apart"]["Message"]


@pytest.mark.parametrize(
    ("status", "steps", "expected"),
    [
        ("COMPLETE", {}, OK),
        ("SKIPPED", {}, NO_EFFECT),
        ("SKIPPED", {"master_background": {"skip": True}}, None),
    ],
)
def test_a_background_that_was_not_subtracted_is_told(made, status, steps, expected):
    task, folder, path = made(3)
    task = replace(task, members=(*task.members, Member("stage2/sky", "background")), steps=steps)
    fits.setval(path, "S_MSBSUB", value=status)
    assert outcomes(verify(task, folder, Quiet())).get("background") == expected


@pytest.mark.parametrize("suffix", ["s000000001_x1d", "nrca1_crfints"])
def test_a_product_whose_name_has_more_in_the_middle_tells_what_failed(made, tmp_path, suffix):
    task, folder, path = made(2)
    task = replace(task, name="stage3/x_f356w_asn.json", outputs=("stage3/x_f356w_asn.json",))
    (folder / "x_f356w_asn.json").write_text("{}")
    path = path.rename(tmp_path / f"x_{suffix}_f356w.fits")
    for resampled in folder.glob("*.fits"):
        resampled.unlink()
    path = path.rename(folder / path.name)
    fits.setval(path, "S_PHOTOM", value="FAILED")
    assert of(verify(task, folder, Quiet()), "S_PHOTOM")["outcome"] == NO_EFFECT


@pytest.mark.parametrize(
    ("product", "expected"), [("x_phot.ecsv", None), ("x_asn.json", FAILED)], ids=str
)
def test_images_are_wanted_where_nothing_else_is_promised(tmp_path, product, expected):
    (tmp_path / "x_asn.json").write_text("{}")
    Table({"MJD": [1.0]}).write(tmp_path / "x_phot.ecsv", format="ascii.ecsv")
    outputs = tuple(dict.fromkeys(("stage3/x_asn.json", f"stage3/{product}")))
    task = Task("stage3/x_asn.json", stage=3, pipeline="Tso3Pipeline", outputs=outputs)
    assert outcomes(verify(task, tmp_path, Quiet())).get("products") == expected


def test_of_many_products_one_tells_what_failed(made):
    task, folder, path = made(3)
    stem = path.name.removesuffix("_i2d.fits")
    task = replace(task, name=f"stage3/{stem}_asn.json", outputs=(f"stage3/{stem}_asn.json",))
    fits.setval(path, "S_OUTLIR", value="FAILED")
    assert of(verify(task, folder, Quiet()), "S_OUTLIR")["outcome"] == NO_EFFECT
