"""Small files with the names and keywords of JWST's archive."""

import json
from collections import defaultdict

import numpy as np
from astropy.io import fits

from astroquery_lis.jwst_stage.archive_jobs import folder_of

__all__ = ["EAST", "NEAR", "fetched_bytes", "is_right", "write_association", "write_uncal"]

NEAR = (10.02, 20.02)
"""RA and Dec in the footprint of every file but those further east."""

EAST = (10.20, 20.02)

_INSTRUMENTS = {"nrc": "NIRCAM", "nrs": "NIRSPEC", "nis": "NIRISS", "mir": "MIRI", "gui": "FGS"}


def write_uncal(folder, name, *, center=NEAR, has_region=True, groups=4, seed=0, **keywords):
    """Write a file of uncal's form and return its path.

    Parameters
    ----------
    folder : `~pathlib.Path`
        Where.
    name : str
        The name.
    center : (float, float), optional
        Middle of the footprint; it is 0.04 degrees wide.
    has_region : bool, optional
        Whether the header has S_REGION.
    groups : int, optional
        Some 8 kB each.
    seed : int, optional
        Of the pixels.
    **keywords
        Of the primary header.
    """
    detector = name.split("_")[3]
    primary = fits.PrimaryHDU()
    header = {
        "TELESCOP": "JWST",
        "INSTRUME": _INSTRUMENTS[detector[:3]],
        "DETECTOR": detector.upper(),
        "EXP_TYPE": "NRC_IMAGE",
        "FILTER": "F200W",
        "PUPIL": "CLEAR",
        "DATE-OBS": "2022-08-01",
        "TIME-OBS": "12:00:00",
        "TARG_RA": NEAR[0],
        "TARG_DEC": NEAR[1],
        "TARGPROP": "FIELD",
    }
    primary.header.update(header | {key.replace("_OBS", "-OBS"): v for key, v in keywords.items()})
    pixels = np.random.default_rng(seed).integers(0, 60_000, (groups, 64, 64)).astype("u2")
    sci = fits.ImageHDU(pixels, name="SCI")
    if has_region:
        (ra, dec), half = center, 0.02
        corners = ((-half, -half), (half, -half), (half, half), (-half, half))
        text = " ".join(f"{ra + x:.6f} {dec + y:.6f}" for x, y in corners)
        sci.header["S_REGION"] = f"POLYGON ICRS  {text}"
    path = folder / name
    fits.HDUList([primary, sci, fits.ImageHDU(pixels[0], name="ZEROFRAME")]).writeto(path)
    return path


def write_association(folder, name, product, members):
    """Write an association file and return its path."""
    rows = [{"expname": member, "exptype": "science"} for member in members]
    path = folder / name
    path.write_text(
        json.dumps({"asn_type": "image", "products": [{"name": product, "members": rows}]})
    )
    return path


def fetched_bytes(sky):
    """Return how many bytes of each file were sent."""
    sent = defaultdict(int)
    for record in sky.requests:
        if "Download" in record.path:
            sent[record.path.rpartition("/")[2]] += record.bytes_sent
    return sent


def is_right(folder, held):
    for path in held:
        copy = folder / folder_of(path.name) / path.name
        assert copy.read_bytes() == path.read_bytes(), path.name
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == sorted(p.name for p in held)
