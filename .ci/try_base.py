"""Try an installation without extras: what it must do, and what it must say that it lacks."""

import importlib.util
import sys
import tempfile

import astropy.units as u

from astroquery_lis import LegacySurvey, sandbox
from astroquery_lis.exceptions import OptionalDependencyError
from astroquery_lis.jwst_stage import JwstStage


def refused(extra, module, call):
    """Check that a call whose package is missing names the extra in one sentence."""
    if importlib.util.find_spec(module):
        return
    try:
        call()
    except OptionalDependencyError as error:
        assert extra in str(error), error
        assert len(str(error).splitlines()) == 1, error
        print(f"without {module}: {error}")
    else:
        sys.exit(f"nothing was missed without {module}")


def main():
    with sandbox.serve() as sky, tempfile.TemporaryDirectory() as folder:
        place = sky.positions["field"]
        hdul = LegacySurvey.get_cutout(place, 64, bands="gr", products=("image", "invvar"))
        assert [hdu.name for hdu in hdul[1:]] == ["IMAGE_G", "IMAGE_R", "INVVAR_G", "INVVAR_R"]
        assert len(LegacySurvey.query_tractor(place, radius=0.5 * u.arcmin))
        assert len(LegacySurvey.query_bricks(place, radius=0.2 * u.deg))
        table = LegacySurvey.query_bricks(place, radius=1 * u.arcmin)
        targets = {"ra": [place.ra.deg], "dec": [place.dec.deg]}
        targets = type(table)(targets)
        done = LegacySurvey.download_cutouts(targets, 32, download_dir=folder, bands="r")
        assert list(done["Status"]) == ["COMPLETE"]
        scale = 0.5 * u.arcsec
        refused(
            "mosaic",
            "reproject",
            lambda: LegacySurvey.get_cutout(
                place, 32, bands="r", pixel_scale=scale, source="bricks"
            ),
        )
        refused(
            "batch",
            "h5py",
            lambda: LegacySurvey.download_cutouts(
                targets, 32, download_dir=f"{folder}/h5", bands="r", output="hdf5"
            ),
        )
        refused("footprint", "mocpy", lambda: LegacySurvey.get_moc(bands="r"))

        def picture():
            from astroquery_lis import pictures

            pictures.plot(hdul)

        refused("plot", "matplotlib", picture)

        def chain():
            from astroquery_lis.sandbox import jwst

            JwstStage.plan(jwst.simulate(folder).uncals)

        refused("jwst", "stdatamodels", chain)
    print("the installation does its job")


if __name__ == "__main__":
    main()
