"""The kinds of files that a whole release or region has: bricks, CCDs, depths, randoms, matches.

From the releases' file pages.  What has no name here can be asked for by its path.
"""

from __future__ import annotations

from collections.abc import Iterator

N_RANDOMS = 20
LATEST = 99

RELEASE_WORDS = {
    "dr6": {"ccds": "dr6plus"},
    "dr9": {"randoms": "dr9-randoms-0.48.0", "matches": "dr9"},
    "dr10": {"randoms": "dr10.1-randoms-2.6.0", "matches": "dr10.1"},
}
"""What stands in names of files where it is not the release."""

_CCDS = {
    "survey-ccds": "table of the CCDs",
    "ccds-annotated": "table of the CCDs with more columns",
}
_RANDOMS = {
    "randoms": "random points",
    "randoms-outside": "random points outside the footprint",
    "randoms-allsky": "random points all over the sky",
}
_MATCHES = {
    "specObj-dr16": 9,
    "dr16Q-v4": 10,
    "superset-dr16Q-v3": 10,
    "dr12Q": 10,
    "superset-dr12Q": 10,
    "dr7Q": 10,
}

Kind = tuple[str, str, int, str, bool, str, int]
"""Name, what there is one of, first release, template, whether listed, description, last release"""


def release_files() -> Iterator[Kind]:
    """Yield every kind."""
    template = "{folder}/survey-bricks-{folder_name}.fits.gz"
    yield "region-bricks", "region", 5, template, False, "table of the bricks of a region", LATEST
    template = "{release}/survey-bricks.fits.gz"
    yield "survey-bricks", "release", 5, template, False, "table of all bricks", LATEST
    for name, text in {"depth": "histograms of depth", "depth-summary": "sum of those"}.items():
        template = "{folder}/{folder_name}-" + f"{name}.fits.gz"
        yield f"region-{name}", "region", 5, template, True, f"{text} of all bricks", LATEST
    yield from _of_ccds()
    for family, text in _RANDOMS.items():
        for number in range(N_RANDOMS):
            name = f"{family}-1-{number}"
            template = "{release}/randoms/" + f"{name}.fits"
            yield name, "release", 9, template, True, text, LATEST
    for number in range(N_RANDOMS):
        template = "{folder}/randoms/randoms-{region}-1-" + f"{number}.fits"
        text = "random points of a region"
        yield f"randoms-region-1-{number}", "region", 9, template, True, text, 10
    template = "{release}/randoms/survey-bricks-{randoms}.fits"
    yield "randoms-bricks", "release", 9, template, True, "table of the bricks of the randoms", 10
    for name, since in _MATCHES.items():
        template = "{folder}/external/survey-{matches}-{region}-" + f"{name}.fits"
        yield f"match-{name}", "region", since, template, True, f"rows that match {name}", 10
    template = "{release}/masking/gaia-mask-{release}.fits.gz"
    yield "gaia-mask", "release", 9, template, True, "stars that are masked", 10


def _of_ccds() -> Iterator[Kind]:
    for camera in ("90prime", "mosaic", "decam"):
        for kind, text in _CCDS.items():
            template = "{release}/" + f"{kind}-{camera}" + "-{release}.fits.gz"
            yield f"{kind}-{camera}", "release", 8, template, False, text, LATEST
        template = "{release}/" + f"survey-ccds-{camera}" + "-{release}.kd.fits"
        until = 10 if camera == "decam" else 9
        yield f"survey-ccds-{camera}-kd", "release", 8, template, False, "the CCDs as a tree", until
    for kind, text in _CCDS.items():
        yield kind, "release", 7, "{release}/" + kind + "-{release}.fits.gz", False, text, 7
    template = "{release}/survey-ccds-{ccds}.kd.fits"
    yield "survey-ccds-kd", "release", 5, template, False, "the CCDs as a tree", 7
    template = "{release}/survey-ccds-nocuts.fits.gz"
    yield "survey-ccds-nocuts", "release", 5, template, False, "table of all CCDs", 5
