"""Everything that goes wrong, at every entry: the right answer or a typed error, and in bounds.

Each of the faults of the sandbox meets each way in, on every request and on the first only.  The
answer has to be that without the fault, or an error of the package; a second call, without the
fault, has to be right; no call takes longer than ``conf.deadline`` and five seconds; and memory
stays below a bound.  ``--only KIND`` and ``--way NAME`` run a part.

Some faults hit requests for a range only.  A way that reads whole files asks for one when it goes
on after a cut, which comes first there; the services are never asked for one, and those calls are
left out and counted.
"""

import collections
import hashlib
import resource
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
from _faults import variants
from _report import parser, report
from _served import served
from astropy.io.fits import HDUList
from astropy.table import Table

from astroquery_lis import LegacySurveyClass, conf
from astroquery_lis.exceptions import (
    ChecksumWarning,
    CoverageWarning,
    LegacySurveyError,
    LegacySurveyWarning,
    NoCoverageError,
    NotFoundError,
)
from astroquery_lis.io.mirrors import HEALTH

TIMEOUT_S, DEADLINE_S, GRACE_S = 1.5, 4.0, 5.0
LIMIT_MB = 600
ABSENT = (NoCoverageError, NotFoundError)
RANGED = {"wrong_range", "ignore_range", "short"}
READ_WHOLE = {"whole files", "catalogue of files", "table of bricks"}
WITHOUT_RANGES = {
    "cutout of the viewer",
    "cutout at a pixel scale",
    "PSF",
    "picture",
    "checksum list",
    "catalogue of TAP",
}
N_CALLS = 2000
# Where the bits of a file differ that came by byte ranges, nothing can tell.
UNGUARDED = "flip"


def ways(star):
    """Return (name, pattern of what goes wrong, call) of every way in."""
    cut = {"size": 96, "bands": "r"}
    near = {"radius": 20 * u.arcsec, "columns": ["ra", "dec", "type", "flux_r"]}
    files = {"products": "tractor", "show_progress": False}

    def download(survey, folder):
        table = survey.download_cutouts(
            [star], download_dir=folder, source="bricks", show_progress=False, **cut
        )
        return _rows(table)

    def brick_files(survey, folder):
        return _rows(survey.get_brick_files(star, download_dir=folder, **files))

    def covered(survey, folder):
        answer = survey.covers([star, star], observed=True)
        if not answer.any():
            raise NoCoverageError("It says that nothing is there.")
        return answer

    return [
        ("cutout of bricks", "*image-r*", lambda s, f: s.get_cutout(star, source="bricks", **cut)),
        (
            "cutout of the viewer",
            "/viewer/*",
            lambda s, f: s.get_cutout(star, source="viewer", **cut),
        ),
        (
            "cutout at a pixel scale",
            "/viewer/*",
            lambda s, f: s.get_cutout(star, source="viewer", pixel_scale=1 * u.arcsec, **cut),
        ),
        ("PSF", "/viewer/*", lambda s, f: s.get_psf(star, bands="r", source="viewer")),
        ("picture", "/viewer/*", lambda s, f: s.get_picture(star, 64)),
        ("batch of cutouts", "*image-r*", download),
        ("whole files", "*tractor-*", brick_files),
        ("checksum list", "*.sha256sum", brick_files),
        (
            "catalogue of files",
            "*tractor-*",
            lambda s, f: s.query_tractor(star, source="files", **near),
        ),
        ("catalogue of TAP", "/tap/*", lambda s, f: s.query_tractor(star, source="tap", **near)),
        (
            "table of bricks",
            "*survey-bricks*",
            lambda s, f: s.query_bricks(star, radius=1 * u.arcmin),
        ),
        ("covered", "*", covered),
        ("values of maps", "*nexp-r*", lambda s, f: s.query_maps([star], "nexp", bands="r")),
    ]


def _rows(manifest):
    """Return what a manifest tells, and the bytes of its files."""
    rows = []
    for row in manifest:
        if row["Status"] not in ("COMPLETE", "CACHED"):
            # The batch goes on; its row has to say what went wrong.
            kind = NoCoverageError if row["Status"] == "NODATA" else LegacySurveyError
            raise kind(str(row["Message"]))
        rows.append(_without_date(Path(row["Local Path"])))
    return rows


def _without_date(path):
    if path.suffix == ".fits" and "tractor" not in path.name:
        with HDUList.fromstring(path.read_bytes()) as hdus:
            return _digest(hdus)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(answer):
    """Return what tells an answer from another."""
    if isinstance(answer, HDUList):
        parts = [(hdu.name, None if hdu.data is None else hdu.data.tobytes()) for hdu in answer]
    elif isinstance(answer, Table):
        parts = [answer.pformat(max_lines=-1, max_width=-1, show_unit=True)]
    elif isinstance(answer, np.ndarray):
        parts = [answer.shape, answer.tobytes()]
    else:
        parts = answer
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class Outcome:
    """How one call ended, and the seconds it took.

    ``ending`` is 'right', 'fewer' with a warning that something is not there, 'flagged' with one
    that a digest differs, 'wrong' or the error.
    """

    def __init__(self, survey, call, truth):
        start = time.monotonic()
        self.error = None
        folder = tempfile.mkdtemp()
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", LegacySurveyWarning)
                answer = _digest(call(survey, folder))
            self.ending = "right" if answer == truth else _said(said)
        except LegacySurveyError as error:
            self.ending, self.error = type(error).__name__, error
        except BaseException as error:  # whatever is not typed is looked for
            self.ending, self.error = f"untyped {type(error).__name__}", error
        finally:
            shutil.rmtree(folder)
        self.seconds = time.monotonic() - start

    @property
    def bad(self):
        return self.ending == "wrong" or self.ending.startswith("untyped")


def _said(said):
    """Return what the warnings of an answer that is not right tell."""
    for category, ending in ((ChecksumWarning, "flagged"), (CoverageWarning, "fewer")):
        if any(issubclass(warning.category, category) for warning in said):
            return ending
    return "wrong"


def new_survey(urls):
    survey = LegacySurveyClass()
    survey.mirror = urls["mirror"]
    return survey


def met(sky, way, kind, options, times, truth):
    """Return (how the call with the fault ended, how the next one did, how often it was hit)."""
    _, pattern, call = way
    HEALTH.reset()
    cache = tempfile.mkdtemp()
    try:
        with conf.set_temp("cache_dir", cache):
            survey = new_survey(sky.urls)
            sky.fail(kind=kind, match=pattern, times=times, **options)
            if kind in RANGED and way[0] in READ_WHOLE:
                sky.also(kind="cut", match=pattern, times=1)
            with (
                conf.set_temp("timeout", TIMEOUT_S),
                conf.set_temp("deadline", DEADLINE_S),
                conf.set_temp("retries", 1),
            ):
                first = Outcome(survey, call, truth)
            hits = sky.fail()["hits"]
            return first, Outcome(survey, call, truth), hits
    finally:
        shutil.rmtree(cache)


def growth_mb(survey, star):
    """Return how much the process grows over many calls, the first of which are not counted."""
    before_kb = 0
    for number in range(N_CALLS + N_CALLS // 10):
        if number == N_CALLS // 10:
            before_kb = _resident_kb()
        survey.get_cutout(star, 32, bands="r", products=("image", "maskbits"), source="bricks")
        survey.query_tractor(star, radius=5 * u.arcsec, source="files")
    return (_resident_kb() - before_kb) / 1024


def _resident_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


_ABSENCES = {("code", 404), ("code", 410), ("to", "/nowhere"), ("to", "/legacysurvey/")}


def failures_of(kind, options, first, second):
    """Return what was not as it has to be."""
    found = []
    if first.bad and not (kind == UNGUARDED and first.ending == "wrong"):
        found.append(f"{first.ending}: {first.error}")
    is_404 = {"code": options.get("code"), "to": options.get("to")}.items() & _ABSENCES
    if (first.ending == "fewer" or isinstance(first.error, ABSENT)) and not is_404:
        found.append(f"{first.ending}, although nothing said so: {first.error}")
    if second.ending != "right" and not (kind == UNGUARDED and first.ending == "wrong"):
        found.append(f"the next call was {second.ending}: {second.error}")
    if first.seconds > DEADLINE_S + GRACE_S:
        found.append(f"took {first.seconds:.1f} s")
    return found


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--only", help="a kind of fault")
    arguments.add_argument("--way", help="a way in")
    chosen = arguments.parse_args()
    warnings.simplefilter("ignore")
    faults = [fault for fault in variants() if chosen.only in (None, fault[1])]
    endings, failures, slowest = collections.Counter(), [], 0.0
    unreached = left_out = 0
    with served() as sky:
        conf.viewer_url, conf.tap_url = sky.urls["viewer"], sky.urls["tap"]
        entries = [way for way in ways(sky.places["star"]) if chosen.way in (None, way[0])]
        truths = {}
        with tempfile.TemporaryDirectory() as cache, conf.set_temp("cache_dir", cache):
            for name, _, call in entries:
                truths[name] = _digest(call(new_survey(sky.urls), tempfile.mkdtemp(dir=cache)))
        for way in entries:
            for label, kind, options in faults:
                if kind in RANGED and way[0] in WITHOUT_RANGES:
                    left_out += 2
                    continue
                for times in (None, 1):
                    first, second, hits = met(sky, way, kind, options, times, truths[way[0]])
                    if not hits:
                        unreached += 1
                        print(f"{way[0]}, {label}: not met", flush=True)
                    endings[first.ending] += 1
                    slowest = max(slowest, first.seconds)
                    often = "first" if times else "every"
                    for failure in failures_of(kind, options, first, second):
                        failures.append(f"{way[0]}, {label}, {often}: {failure}")
                        print(failures[-1], flush=True)
        with tempfile.TemporaryDirectory() as cache, conf.set_temp("cache_dir", cache):
            grown_mb = growth_mb(new_survey(sky.urls), sky.places["star"])
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = [
        ("faults", len(faults), ""),
        ("ways in", len(entries), ""),
        ("calls with a fault", sum(endings.values()), ""),
        ("that never met it", unreached, ""),
        ("left out: the service is never asked for a range", left_out, ""),
        *((f"ended: {ending}", count, "") for ending, count in endings.most_common()),
        ("failures", len(failures), ""),
        ("longest call", slowest, "s"),
        ("most memory of the process", memory_mb, "MB"),
        (f"growth over {N_CALLS} calls", grown_mb, "MB"),
        ("CPU of the process", time.process_time(), "s"),
    ]
    report("Faults at every way in", rows, chosen)
    if failures or memory_mb > LIMIT_MB:
        raise SystemExit(f"{len(failures)} failures, {memory_mb:.0f} MB")


if __name__ == "__main__":
    main()
