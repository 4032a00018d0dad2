"""A few small files of JWST's form, for examples that need no more than names and keywords."""

import json
from pathlib import Path

import numpy as np
from astropy.io import fits

from .sky import POSITIONS_DEG

__all__ = ["PROGRAM", "example_files"]

PROGRAM = 1111
_EXPOSURES = (
    ("nrcb1", "F200W", "CLEAR"),
    ("nrcblong", "F444W", "CLEAR"),
)
_HALF_WIDTH_DEG = 0.009
_SEED = 20220712


def example_files(folder):
    """Write two exposures of two detectors of NIRCam, and their association.

    The pixels are noise: pipelines need what `sandbox.jwst` makes.

    Parameters
    ----------
    folder : path-like
        Where; made if it is not there.

    Returns
    -------
    list of `~pathlib.Path`
        The same files each time.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(_SEED)
    paths = []
    for exposure in (1, 2):
        for detector, element, pupil in _EXPOSURES:
            root = f"jw{PROGRAM:05d}001001_02101_{exposure:05d}"
            path = folder / f"{root}_{detector}_uncal.fits"
            hdul = _uncal(rng, detector.upper(), element, pupil, f"0{exposure}:00:00.000")
            hdul.writeto(path, overwrite=True)
            paths.append(path)
    members = [
        {"expname": path.name.replace("_uncal", "_cal"), "exptype": "science"}
        for path in paths[::2]
    ]
    product = {"name": f"jw{PROGRAM:05d}-o001_t001_nircam_clear-f200w", "members": members}
    path = folder / f"jw{PROGRAM:05d}-o001_20220801t000000_image3_00001_asn.json"
    path.write_text(json.dumps({"asn_type": "image3", "products": [product]}, indent=1))
    return [*paths, path]


def _uncal(rng, detector, element, pupil, time):
    ra, dec = POSITIONS_DEG["field"]
    primary = fits.PrimaryHDU()
    primary.header.update(
        {
            "TELESCOP": "JWST",
            "INSTRUME": "NIRCAM",
            "DETECTOR": detector,
            "EXP_TYPE": "NRC_IMAGE",
            "FILTER": element,
            "PUPIL": pupil,
            "SUBARRAY": "SUB64P",
            "DATE-OBS": "2022-07-20",
            "TIME-OBS": time,
            "TARGPROP": "FIELD",
            "TARG_RA": ra,
            "TARG_DEC": dec,
        }
    )
    sci = fits.ImageHDU(rng.integers(9_000, 12_000, (1, 4, 64, 64)).astype("u2"), name="SCI")
    # JWST's own way of writing it, with two blanks.
    half = _HALF_WIDTH_DEG
    corners = ((-half, -half), (half, -half), (half, half), (-half, half))
    text = " ".join(f"{ra + x:.9f} {dec + y:.9f}" for x, y in corners)
    sci.header["S_REGION"] = f"POLYGON ICRS  {text}"
    return fits.HDUList([primary, sci])
