"""``cutouts``, and tables of a thousand positions through pipes."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Column, Table


def _write(path, n, spoiled=()):
    rng = np.random.default_rng(n)
    table = Table({"id": [f"t{i}" for i in range(n)]})
    table["ra"], table["dec"] = rng.uniform(45.05, 45.2, n), rng.uniform(-0.1, 0.1, n)
    for row, position in spoiled:
        table["ra"][row], table["dec"][row] = position
    table.write(path)
    return table


def test_cutouts_of_a_table(run, run_json, scene):
    table = _write("targets.ecsv", 4)
    words = ("cutouts", "targets.ecsv", "--size", "12", "--bands", "r", "-d", "cuts")
    answer = run(*words, "--manifest", "manifest.csv")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err.splitlines()[0].startswith("astroquery-lis: 4 cutouts: 4 complete")
    manifest = Table.read("manifest.csv")
    assert manifest["id"].tolist() == table["id"].tolist()
    for row, path in zip(table, manifest["Local Path"], strict=True):
        with fits.open(path) as hdul:
            assert hdul["IMAGE_R"].shape == (12, 12)
            assert hdul[0].header["RA"] == pytest.approx(row["ra"])
    scene.requests.clear()
    code, document = run_json(*words)
    assert (code, document["counts"]) == (0, {"COMPLETE": 4})
    assert len(scene.requests) == 0
    answer = run("cutouts", "targets.ecsv", "--size", "13", "--bands", "r", "-d", "cuts")
    assert answer.code == 2
    assert "size" in answer.err


def test_rows_that_fail_leave_the_others_alone(run, run_json, scene):
    _write("targets.csv", 4, spoiled=[(1, (95, -30))])
    words = ("cutouts", "targets.csv", "--size", "8", "--bands", "r")
    code, document = run_json(*words, "-d", "one")
    assert (code, document["counts"]) == (0, {"COMPLETE": 3, "NODATA": 1})
    _write("none.csv", 2, spoiled=[(0, (95, -30)), (1, (95, -31))])
    assert run("cutouts", "none.csv", "--size", "8", "-d", "two").code == 3
    _write("hole.csv", 3, spoiled=[(2, (np.nan, 0))])
    code, document = run_json("cutouts", "hole.csv", *words[2:], "-d", "three")
    assert (code, document["counts"]) == (5, {"COMPLETE": 2, "SKIPPED": 1})
    scene.faults.add("status", match="*image-z*", code=503, times=None)
    answer = run(*words[:4], "--bands", "z", "-d", "four")
    assert answer.code == 5
    assert answer.out.count("ERROR") == 3
    answer = run(*words[:4], "--bands", "z", "-d", "five", "--on-error", "raise")
    assert answer.code == 4
    scene.faults.clear()
    assert run(*words[:4], "--bands", "z", "-d", "four").code == 0


def test_regions_by_row(run, run_json):
    table = _write("plain.ecsv", 2)
    table["half"] = ["south", "auto"]
    table.write("targets.ecsv")
    words = ("cutouts", "targets.ecsv", "--size", "8", "--bands", "r", "-d", "cuts")
    code, document = run_json(*words, "--region", "half")
    assert code == 0
    assert [row["region"] for row in document["rows"]] == ["south"] * 2
    answer = run(*words, "--region", "east")
    assert answer.code == 2
    assert "region" in answer.err
    assert "auto|north|south|COLUMN" in run("cutouts", "--help").out


def test_hdf5_and_processes(run_json, tmp_path):
    h5py = pytest.importorskip("h5py")
    _write("targets.csv", 3)
    words = ("cutouts", "targets.csv", "--size", "8", "--bands", "r")
    code, document = run_json(*words, "-d", "cuts", "--output", "hdf5")
    assert (code, document["counts"]) == (0, {"COMPLETE": 3})
    with h5py.File(document["rows"][0]["Local Path"].partition("::")[0]) as file:
        assert len(file)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "the following arguments are required: TABLE, -d/--download-dir"),
        (("none.csv", "-d", "cuts"), "table='none.csv' cannot be read: No such file"),
        (("bad.csv", "-d", "cuts"), "has no columns of RA and Dec"),
        (("text.csv", "-d", "cuts"), "is not an angle"),
        (("good.csv", "-d", "cuts", "--bands", "q"), "bands of dr10"),
        (("good.csv", "-d", "cuts", "--id-column", "name"), "id_column='name' is not a column"),
        (("good.csv", "-d", "cuts", "--output", "tar"), "invalid choice: 'tar'"),
        (("good.csv", "-d", "cuts", "--manifest", "x"), "the name says no format"),
    ],
)
def test_bad_words_of_cutouts(run, tmp_path, words, match, scene):
    (tmp_path / "bad.csv").write_text("x,y\n1,2\n")
    (tmp_path / "text.csv").write_text("ra,dec\nhere,there\n")
    (tmp_path / "good.csv").write_text("ra,dec\n45.1,0.01\n")
    answer = run("cutouts", *words)
    assert answer.code == 2
    assert match in answer.err
    assert not (tmp_path / "cuts").exists()
    assert len(scene.requests) == 0


THOUSAND = "seq 1000 | awk '{printf \"%.5f %.5f t%d\\n\", 45.05+$1*1e-4, 0.06+$1*1e-5, $1}'"


def test_a_thousand_positions_through_a_pipe_of_three(shell):
    answer = shell(
        f"set -o pipefail; {THOUSAND} | $LIS covers --table - --bands r -o - "
        "| $LIS crossmatch - --radius 30arcsec --columns type -o - --format csv "
        "| $LIS bricks --table - --format csv"
    )
    assert answer.code == 0, answer.err
    lines = answer.out.decode().splitlines()
    assert len(lines) == 1001
    assert {line.split(",")[0] for line in lines[1:]} == {"0451p000"}


def test_a_thousand_cutouts_through_a_pipe(shell, tmp_path):
    answer = shell(f"{THOUSAND} | $LIS cutouts - --size 4 --bands r -d cuts --manifest - | tail -1")
    assert answer.code == 0, answer.err
    assert "1000 cutouts: 1000 complete" in answer.err
    assert len(list((tmp_path / "cuts").rglob("*.fits"))) == 1000
    assert b"t1000" in answer.out


def test_a_reader_that_goes_away_is_no_error(shell):
    answer = shell(f"{THOUSAND} | $LIS url --table - | head -1; echo ${{PIPESTATUS[2]}}")
    first, code = answer.out.decode().splitlines()
    assert "ra=45.050100" in first
    assert code == "141"
    assert answer.err == ""


def test_sizes_and_scales_may_be_columns(run, run_json, scene):
    table = Table({"ra": [45.1312, 45.09], "dec": [0.0047, 0.062], "npix": [8, 12]})
    table["scale"] = Column([0.5, 1.0], unit="arcsec")
    table.write("sizes.ecsv")
    words = ("cutouts", "sizes.ecsv", "--size", "npix", "--bands", "r", "-d", "cuts")
    code, document = run_json(*words, "--pixel-scale", "scale")
    assert code == 0
    headers = [fits.getheader(row["Local Path"], 1) for row in document["rows"]]
    assert [header["NAXIS1"] for header in headers] == [8, 12]
    scales = [abs(header["CD1_1"]) * 3600 for header in headers]
    assert scales == pytest.approx([0.5, 1.0])
    scene.requests.clear()
    answer = run(*words[:3], "nosuch", *words[4:])
    assert answer.code == 2
    assert "size='nosuch'" in answer.err
    assert run(*words[:3], "8furlongs", *words[4:]).code == 2
    assert len(scene.requests) == 0
