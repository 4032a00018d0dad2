"""JWST files without pixels that matter: headers as MAST's have them, and a few zeros."""

import numpy as np
from astropy.io import fits

OPTICS = {
    "NRC": {"INSTRUME": "NIRCAM", "DETECTOR": "NRCALONG", "CHANNEL": "LONG", "MODULE": "A",
            "FILTER": "F356W", "PUPIL": "CLEAR"},
    "NIS": {"INSTRUME": "NIRISS", "DETECTOR": "NIS", "FILTER": "CLEAR", "PUPIL": "F200W"},
    "MIR": {"INSTRUME": "MIRI", "DETECTOR": "MIRIMAGE", "FILTER": "F770W", "CHANNEL": "34",
            "BAND": "SHORT"},
    "NRS": {"INSTRUME": "NIRSPEC", "DETECTOR": "NRS1", "FILTER": "F170LP", "GRATING": "G235M"},
    "FGS": {"INSTRUME": "FGS", "DETECTOR": "GUIDER1"},
}  # fmt: skip

DONE = {
    "uncal": {},
    "rate": {"S_RAMP": "COMPLETE", "S_JUMP": "COMPLETE"},
    "cal": {"S_RAMP": "COMPLETE", "S_WCS": "COMPLETE", "S_PHOTOM": "COMPLETE"},
}


def write_exposure(
    folder,
    number=1,
    *,
    exp_type="NRC_IMAGE",
    suffix="uncal",
    root=None,
    ra=190.0,
    dec=1.2,
    shape=(8, 8),
    groups=3,
    ints=1,
    drop=(),
    named=None,
    **cards,
):
    """Write one file, and return its path; a keyword with the value None is left out."""
    optics = OPTICS[exp_type[:3]]
    primary = fits.PrimaryHDU()
    header = {
        "TELESCOP": "JWST", **optics, "EXP_TYPE": exp_type, "READPATT": "RAPID",
        "PROGRAM": "01234", "OBSERVTN": "001", "VISIT": "001", "VISITGRP": "02", "SEQ_ID": "1",
        "ACT_ID": "01", "EXPOSURE": str(number), "TARGPROP": "FIELD-1", "TSOVISIT": False,
        "BKGDTARG": False, "SUBARRAY": "SUB160", "PATTTYPE": "INTRAMODULE", "PATT_NUM": number,
        "DATE-OBS": "2026-03-01", "TIME-OBS": f"01:{number:02d}:00.000",
        "NINTS": ints, "NGROUPS": groups, "NFRAMES": 1, "GROUPGAP": 0, "TFRAME": 0.3, "TGROUP": 0.3,
        "SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": shape[1], "SUBSIZE2": shape[0],
        "FASTAXIS": -1, "SLOWAXIS": 2, "NOUTPUTS": 1,
        **DONE[suffix.removesuffix("ints")],
    }  # fmt: skip
    header |= {keyword.replace("_OBS", "-OBS"): value for keyword, value in cards.items()}
    for keyword, value in header.items():
        if value is not None and keyword not in drop:
            primary.header[keyword] = value
    axes = {
        "uncal": (ints, groups, *shape),
        "rateints": (ints, *shape),
        "calints": (ints, *shape),
    }.get(suffix, shape)
    science = fits.ImageHDU(
        np.zeros(axes, np.uint16 if suffix == "uncal" else np.float32), name="SCI"
    )
    pointing = {
        "RA_REF": ra, "DEC_REF": dec, "ROLL_REF": 30.0, "V2_REF": 90.0, "V3_REF": -490.0,
        "V3I_YANG": 0.0, "VPARITY": -1,
    }  # fmt: skip
    for keyword, value in pointing.items():
        if keyword not in drop:
            science.header[keyword] = value
    if root is None:
        detector = header.get("DETECTOR", "").lower()
        program, observation = header.get("PROGRAM") or "00000", header.get("OBSERVTN") or "000"
        root = f"jw{program}{observation}001_02101_{number:05d}_{detector}"
    path = folder / f"{root}_{named or suffix}.fits"
    path.parent.mkdir(parents=True, exist_ok=True)
    asdf = fits.ImageHDU(np.zeros(16, np.uint8), name="ASDF")
    fits.HDUList([primary, science, asdf]).writeto(path, overwrite=True)
    return path
