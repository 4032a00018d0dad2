"""Pools as the archive makes them, the files that they tell of, and the rules of `jwst`."""

from pathlib import Path

from astroquery_lis.jwst_stage.pipelines import EXP_TYPES

from .headers import write_exposure

_KEYWORDS = {
    "PROGRAM": "program", "OBSERVTN": "obs_num", "VISIT": "visit", "VISITGRP": "visitgrp",
    "SEQ_ID": "seq_id", "ACT_ID": "act_id", "EXPOSURE": "exposure", "VISITYPE": "visitype",
    "INSTRUME": "instrume", "DETECTOR": "detector", "CHANNEL": "channel", "MODULE": "module",
    "FILTER": "filter", "PUPIL": "pupil", "GRATING": "grating", "BAND": "band",
    "FXD_SLIT": "fxd_slit", "LAMP": "lamp", "OPMODE": "opmode", "SUBARRAY": "subarray",
    "PATTTYPE": "patttype", "PATT_NUM": "patt_num", "DITHPTIN": "dithptin", "MOSTILNO": "mostilno",
    "EXPSPCIN": "expspcin", "NUMDTHPT": "numdthpt", "SUBPXPTS": "subpxpts", "SUBPXPNS": "subpxpns",
    "MSAMETFL": "msametfl", "MSASTATE": "msastate", "OBS_ID": "obs_id", "DMS_NOTE": "dms_note",
    "NOD_TYPE": "nod_type",
}  # fmt: skip
_FLAGS = {
    "TSOVISIT": "tsovisit", "BKGDTARG": "bkgdtarg", "IS_PSF": "is_psf", "IS_IMPRT": "is_imprt"
}  # fmt: skip
_EMPTY = ("", "null", "n/a", "none", "--")


def folder():
    """Return where the package keeps the pools of its tests."""
    import jwst.associations

    return Path(jwst.associations.__file__).parent / "tests/data"


def read_pool(name):
    """Return a pool with its exposures only."""
    from jwst.associations.tests.helpers import combine_pools

    pool = combine_pools(folder() / name)
    pool = pool[[str(value).endswith("_uncal.fits") for value in pool["filename"]]]
    # Some of the pools spell what headers and the archive spell T.
    for name in set(_FLAGS.values()) & set(pool.colnames):
        pool[name] = ["t" if str(value) in ("t", "true", "y") else "f" for value in pool[name]]
    return pool


def write_files(pool, directory):
    """Write a file for each exposure of a pool that a plan can take, and return their roots."""
    roots = []
    for number, row in enumerate(pool, 1):
        values = {name: str(row[name]) for name in pool.colnames}
        exp_type = values["exp_type"].upper()
        if exp_type not in EXP_TYPES:
            continue
        cards = {
            keyword: values.get(column, "").upper()
            for keyword, column in _KEYWORDS.items()
            if values.get(column, "").lower() not in _EMPTY
        }
        missing = dict.fromkeys(set(_KEYWORDS) - set(cards))
        cards = missing | cards | {k: values.get(c) == "t" for k, c in _FLAGS.items()}
        for keyword in ("FILTER", "PUPIL", "GRATING", "BAND", "CHANNEL", "DETECTOR"):
            cards[keyword] = cards[keyword] or "N/A"
        cards["OBSERVTN"] = cards["OBSERVTN"].zfill(3)
        if "PATT_NUM" in cards and cards["PATT_NUM"] is not None:
            cards["PATT_NUM"] = int(cards["PATT_NUM"])
        if cards["MSAMETFL"]:
            (directory / cards["MSAMETFL"].lower()).write_bytes(b"")
            cards["MSAMETFL"] = cards["MSAMETFL"].lower()
        minutes, seconds = divmod(number, 60)
        cards["TIME_OBS"] = f"{1 + minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}.000"
        root = values["filename"].removesuffix("_uncal.fits")
        write_exposure(
            directory,
            number,
            exp_type=exp_type,
            root=root,
            ints=1 if values.get("nints") == "1" else 2,
            shape=(2, 2),
            TARGPROP=f"TARGET-{int(values['targetid']):03d}",
            **cards,
        )
        roots.append(root)
    return roots


def associations_of(pool):
    """Return what the package makes of a pool: type, suffix of the science, members with roles."""
    from jwst.associations.generator.generate_per_candidate import generate_per_candidate

    found = []
    for association in generate_per_candidate(pool, None):
        product = association["products"][0]
        members = set()
        suffix = ""
        for member in product["members"]:
            stem, _, kind = member["expname"].rpartition(".")[0].rpartition("_")
            members.add((stem, member["exptype"].lower()))
            if member["exptype"].lower() == "science":
                suffix = kind
        found.append((association["asn_type"], suffix, product["name"], frozenset(members)))
    return found


# ---- pools of modes, made at random -------------------------------------------------------------

_COMMON = {
    "program": "1234", "visit": "1", "visitgrp": "2", "seq_id": "1", "act_id": "1",
    "visitype": "prime_targeted_fixed", "pntgtype": "science", "mostilno": "1", "tsovisit": "f",
    "bkgdtarg": "f", "is_psf": "f", "is_imprt": "f", "subarray": "full", "nints": "2",
    "patttype": "null", "dms_note": "null",
}  # fmt: skip


def _image(optics):
    def rows(random):
        filters = random.sample(optics["filters"], random.randint(1, 2))
        return [
            {"exp_type": optics["exp_type"], "instrume": optics["instrume"], "detector": detector,
             "channel": optics.get("channel", "null"), **element, "targetid": target,
             "obs_num": target, "subarray": subarray}
            for target in ("1", "2")[: random.randint(1, 2)]
            for element in filters
            for subarray in optics["subarrays"][: random.randint(1, 2)]
            for detector in optics["detectors"]
            for _ in range(random.randint(1, 3))
        ]  # fmt: skip

    return rows


_NIRCAM = {
    "exp_type": "nrc_image", "instrume": "nircam", "detectors": ["nrcalong", "nrcblong"],
    "channel": "long", "subarrays": ["full", "sub160"],
    "filters": [{"filter": "f356w", "pupil": "clear"}, {"filter": "f444w", "pupil": "f405n"}],
}  # fmt: skip
_NIRISS = {
    "exp_type": "nis_image", "instrume": "niriss", "detectors": ["nis"], "subarrays": ["full"],
    "filters": [{"filter": "clear", "pupil": "f200w"}, {"filter": "f380m", "pupil": "clearp"}],
}  # fmt: skip
_MIRI = {
    "exp_type": "mir_image", "instrume": "miri", "detectors": ["mirimage"],
    "subarrays": ["full", "sub256"], "filters": [{"filter": "f770w"}, {"filter": "f1000w"}],
}  # fmt: skip


def _with_background(make):
    """Return a maker of science and background observations, each of two positions or more."""

    def rows(random):
        science = [{**row, "obs_num": "1", "targetid": "1"} for row in make(random)]
        sky = [{**row, "obs_num": "2", "targetid": "2", "bkgdtarg": "t"}
               for row in science[: random.randint(1, len(science))]]  # fmt: skip
        return science + sky

    return rows


def _mrs(random):
    bands = random.sample(["short", "medium", "long"], random.randint(1, 3))
    return [
        {"exp_type": "mir_mrs", "instrume": "miri", "detector": detector, "channel": channel,
         "band": band, "patttype": "4-point", "targetid": "1", "obs_num": "1"}
        for band in bands
        for detector, channel in (("mirifushort", "12"), ("mirifulong", "34"))
        for _ in range(random.randint(1, 2))
    ]  # fmt: skip


def _lrs(random):
    nods = [
        {"exp_type": "mir_lrs-fixedslit", "instrume": "miri", "detector": "mirimage",
         "filter": "p750l", "patttype": "along-slit-nod", "patt_num": str(position),
         "targetid": "1", "obs_num": "1"}
        for position in (1, 2)
        for _ in range(random.randint(1, 2))
    ]  # fmt: skip
    confirmation = {"exp_type": "mir_taconfirm", "instrume": "miri", "detector": "mirimage",
                    "filter": "f560w", "targetid": "1", "obs_num": "1"}  # fmt: skip
    return nods + [confirmation] * random.randint(0, 1)


def _fixed_slits(random):
    points = random.choice([2, 3, 5])
    subpixels = random.choice([1, 2])
    return [
        {"exp_type": "nrs_fixedslit", "instrume": "nirspec", "detector": detector,
         "filter": "f170lp", "grating": "g235h", "fxd_slit": slit, "subarray": f"sub{slit}",
         "numdthpt": str(points * subpixels), "subpxpts": str(subpixels), "patt_num": str(number),
         "expspcin": str(1 + i), "targetid": "1", "obs_num": "1"}
        for i, slit in enumerate(random.sample(["s200a1", "s1600a1"], random.randint(1, 2)))
        for number in range(1, points * subpixels + 1)
        for detector in ("nrs1", "nrs2")
    ]  # fmt: skip


def _shutters(random):
    return [
        {"exp_type": "nrs_msaspec", "instrume": "nirspec", "detector": detector,
         "filter": "f170lp", "grating": "g235m", "msametfl": f"jw01234_{config}_msa.fits",
         "nod_type": "3-shutter-slitlet", "numdthpt": "3", "subpxpts": "1",
         "patt_num": str(number), "expspcin": str(config), "targetid": "1", "obs_num": "1"}
        for config in range(1, random.randint(1, 2) + 1)
        for number in (1, 2, 3)
        for detector in ("nrs1", "nrs2")
    ]  # fmt: skip


def _ifu(random):
    gratings = random.sample([("f170lp", "g235m"), ("f290lp", "g395m")], random.randint(1, 2))
    rows = [
        {"exp_type": "nrs_ifu", "instrume": "nirspec", "detector": "nrs1", "filter": lower,
         "grating": grating, "patttype": "4-point-dither", "is_imprt": imprint,
         "dithptin": str(position), "patt_num": str(position), "targetid": "1", "obs_num": "1"}
        for lower, grating in gratings
        for imprint in ("f", "t")
        for position in range(1, random.randint(2, 4))
    ]  # fmt: skip
    if random.random() < 0.5:
        rows += [{**row, "obs_num": "2", "targetid": "2", "bkgdtarg": "t"} for row in rows]
    return rows


def _wfss(random):
    grisms = random.sample(["gr150r", "gr150c"], random.randint(1, 2))
    rows = []
    number = 0
    for pupil in random.sample(["f200w", "f115w"], random.randint(1, 2)):
        for kind, element in [("nis_image", "clear"), *(("nis_wfss", g) for g in grisms)]:
            for _ in range(random.randint(1, 2)):
                number += 1
                rows.append(
                    {"exp_type": kind, "instrume": "niriss", "detector": "nis", "filter": element,
                     "pupil": pupil, "expspcin": str(number), "targetid": "1", "obs_num": "1"}
                )  # fmt: skip
    return rows


def _time_series(random):
    return [
        {"exp_type": kind, "instrume": "nircam", "detector": detector, "channel": channel,
         "filter": element, "pupil": pupil, "tsovisit": "t", "subarray": "sub64",
         "targetid": "1", "obs_num": observation}
        for observation in ("1", "2")[: random.randint(1, 2)]
        for kind, detector, channel, element, pupil in (
            ("nrc_tsgrism", "nrcalong", "long", "f322w2", "grismr"),
            ("nrc_tsimage", "nrca1", "short", "f210m", "wlp8"),
        )
        for _ in range(random.randint(1, 3))
    ]  # fmt: skip


def _with_star(cards):
    def rows(random):
        science = [{**cards, "targetid": "1", "obs_num": str(roll)}
                   for roll in (1, 2)[: random.randint(1, 2)]]  # fmt: skip
        star = {**cards, "targetid": "2", "obs_num": "3", "is_psf": "t"}
        return science + [star] * random.randint(1, 2)

    return rows


MODES = {
    "NIRCam imaging": _image(_NIRCAM),
    "NIRISS imaging": _image(_NIRISS),
    "MIRI imaging": _image(_MIRI),
    "MIRI imaging with a background": _with_background(_image(_MIRI)),
    "MIRI MRS": _mrs,
    "MIRI MRS with a background": _with_background(_mrs),
    "MIRI LRS nods": _lrs,
    "NIRSpec fixed slits": _fixed_slits,
    "NIRSpec MOS": _shutters,
    "NIRSpec IFU": _ifu,
    "NIRISS WFSS": _wfss,
    "NIRCam time series": _time_series,
    "MIRI coronagraphy": _with_star(
        {"exp_type": "mir_4qpm", "instrume": "miri", "detector": "mirimage", "filter": "f1140c",
         "subarray": "mask1140"}
    ),
    "NIRISS AMI": _with_star(
        {"exp_type": "nis_ami", "instrume": "niriss", "detector": "nis", "filter": "f480m",
         "pupil": "nrm", "subarray": "sub80"}
    ),
}  # fmt: skip
"""Makers of the rows of a pool, from a random generator."""


def generated(mode, random):
    """Return a pool of a mode with the candidates that the archive would give it."""
    from jwst.associations import AssociationPool

    rows = [{**_COMMON, **row} for row in MODES[mode](random)]
    several = len({row["obs_num"] for row in rows}) > 1
    kind = "background" if any(row["bkgdtarg"] == "t" for row in rows) else "group"
    for number, row in enumerate(rows, 1):
        name = f"jw01234{int(row['obs_num']):03d}001_02101_{number:05d}_{row['detector']}"
        candidates = [(f"o{int(row['obs_num']):03d}", "observation")]
        candidates += [("c1000", kind)] if several else []
        row |= {"filename": f"{name}_uncal.fits", "asn_candidate": str(candidates)}
        row.setdefault("patt_num", str(number))
        row.setdefault("dithptin", row["patt_num"])
        row |= {"exposure": str(number), "obs_id": f"v01234{int(row['obs_num']):03d}001"}
    names = sorted({name for row in rows for name in row})
    return AssociationPool([[row.get(name, "null") for row in rows] for name in names], names=names)
