"""Questions to the services, each of which shows whether one assumption of the package holds.

Each is asked through the code that the package itself uses, of one place of the sky that is in DR10
as well as in the simulated sky, and is answered by what was seen and whether that is as assumed.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from astropy.io import fits

from .._conf import conf, setting
from .._packages import package_version
from .._typing import Keywords
from ..catalogs.catalog_services import DCHISQ, TapAnswer, TapClient, box_where, circle_where
from ..client.cache import PROBE_PATH
from ..client.position_text import resolve_names
from ..exceptions import NotFoundError, ServiceDownError
from ..images.psf import CAMERAS
from ..images.viewer_service import (
    BLANK,
    MAX_REQUEST_PIX,
    NO_SUCH_LAYER,
    ViewerService,
    subimage_parameters,
    viewer_client,
)
from ..io.delivery import parse_checksums
from ..io.http import HttpClient, PoliteSession
from ..io.mirrors import REGISTERED, Mirror, resolve_mirrors
from ..io.ranges import FIRST_RANGE_BYTES, WholeFileAnswer, fetch_range
from ..survey.layers import INVVAR_LIMIT_ARCSEC, layer_of
from ..survey.paths import file_path
from ..survey.pixel_grids import Box
from ..survey.releases import PIXEL_SCALE_ARCSEC, RELEASES
from ..survey.sphere import Circle
from ..survey.tractor_columns import tractor_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from urllib3.response import BaseHTTPResponse

    from ..client import LegacySurveyClass
    from ..jwst_stage.mission_search import MissionSearch

BRICK, PLACE_DEG = "0451p000", (45.09, 0.062)
RELEASE, LAYER = "dr10", "ls-dr10"
PLACE: Keywords = {"ra": PLACE_DEG[0], "dec": PLACE_DEG[1], "layer": LAYER}
"""What the viewer is asked of a place."""

EMPTY: Keywords = {"ra": 266.4, "dec": -29.0, "layer": LAYER}
"""The centre of the Galaxy, far from every brick."""

RADIUS_DEG = 20 / 3600
CIRCLE = Circle(*PLACE_DEG, RADIUS_DEG)
TAP_TABLE = f"ls_{RELEASE}.tractor"
SIZE = 16
SMALL_BYTES = 2e6
GZIP = b"\x1f\x8b"
CONTEXT = re.compile(r"jwst_\d{4}\.pmap")
CCD_NAME = re.compile(r"\w+ \d+-\w+-\w+")


class Answer(NamedTuple):
    """What a service was seen to do, and whether that is as assumed."""

    holds: bool
    seen: str


@dataclass(frozen=True)
class Asked:
    """Whom to ask, and what to expect of the part of the survey that is there."""

    survey: LegacySurveyClass
    trees: tuple[tuple[str, str], ...]
    """Release and region of every tree that a mirror has to have."""
    name: str = "M 31"
    name_deg: tuple[float, float] = (10.6847, 41.2687)
    """An object that the name service has to know, and where it is."""

    program: int = 2736
    """A program of which MAST has public uncal files: the early release of SMACS 0723."""

    crds_url: str = ""
    """The CRDS server; by default that of the configuration, or STScI's."""

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """Every remote mirror; all registered ones where none was chosen."""
        is_auto = self.survey.mirror == "auto"
        mirrors = REGISTERED.values() if is_auto else resolve_mirrors(self.survey.mirror)
        return tuple(mirror for mirror in mirrors if not mirror.is_local)

    @cached_property
    def client(self) -> HttpClient:
        """The client for files, which repeats a request once."""
        return HttpClient(**self._options())

    @cached_property
    def viewer_client(self) -> HttpClient:
        """The client for the viewer, which does not repeat a 500."""
        return viewer_client(timeout_is_set=True, **self._options())

    @cached_property
    def viewer(self) -> ViewerService:
        """The viewer, without a cache."""
        return ViewerService(self.viewer_client, setting("viewer_url"))

    def tap(self, query: str, *, maxrec: int = 5000) -> TapAnswer:
        """Return the answer of the TAP service to a query."""
        make = partial(PoliteSession, **self._options())
        return TapClient(setting("tap_url"), make).run(query, maxrec=maxrec)

    def session(self) -> PoliteSession:
        """Return a session for MAST."""
        return PoliteSession(**self._options())

    def _options(self) -> dict:
        return {
            "timeout_s": self.survey.timeout,
            "retries": min(conf.retries, 1),
            "max_connections": 2,
            "user_agent": f"astroquery_lis/{package_version()}",
        }


def every_tree() -> tuple[tuple[str, str], ...]:
    """Return release and region of every tree of files that the survey has."""
    trees = (t for release in RELEASES.values() for t in release.trees.items())
    return tuple(dict.fromkeys((tree.release, region) for region, tree in trees))


# ---- mirrors -------------------------------------------------------------------------------------


def _first_bytes(asked: Asked, mirror: Mirror, path: str, length: int) -> tuple[bytes, bool]:
    """Return the first bytes of a file, and whether a range came; of a whole file no more."""

    def consume(response: BaseHTTPResponse) -> tuple[bytes, bool]:
        return response.read(length), response.status == 206

    headers = {"Range": f"bytes=0-{length - 1}"}
    return asked.client.fetch(str(mirror.locate(path)), consume, headers=lambda: headers)


def mirror_address(asked: Asked, mirror: Mirror) -> Answer:
    """Tell whether the mirror is where it is looked for."""
    head, _ = _first_bytes(asked, mirror, PROBE_PATH, 16)
    return Answer(head.startswith(GZIP), f"{PROBE_PATH} begins with {head[:2].hex()}")


def mirror_ranges(asked: Asked, mirror: Mirror) -> Answer:
    """Tell whether it serves ranges of a file that can be told from another state of it."""
    url = str(mirror.locate(_coadd("image")))
    try:
        # Of a whole file nothing is read.
        _, version = fetch_range(asked.client, url, 2880, 5760, receive=lambda response: None)
    except WholeFileAnswer:
        return Answer(False, "the whole file came")
    validator = version.validator or "none"
    return Answer(version.validator is not None, f"bytes 2880-5759; validator {validator}")


def _coadd(product: str) -> str:
    return file_path(product, RELEASE, "south", brick=BRICK, band="r")


def coadd_format(asked: Asked, mirror: Mirror) -> Answer:
    """Tell how an image of a brick is stored."""
    data, _ = _first_bytes(asked, mirror, _coadd("image"), FIRST_RANGE_BYTES)
    stream = io.BytesIO(data)
    fits.Header.fromfile(stream)
    header = fits.Header.fromfile(stream)
    unit, codec = str(header.get("BUNIT")).strip(), str(header.get("ZCMPTYPE")).strip()
    is_known = unit.lower() == "nanomaggy" and codec.startswith("RICE")
    shape = header.get("ZNAXIS2"), header.get("ZNAXIS1")
    return Answer(is_known and shape == (3600, 3600), f"{codec}, {unit}, {shape}")


def mirror_releases(asked: Asked, mirror: Mirror) -> Answer:
    """Tell which releases and regions it has."""
    lacking = []
    for release, region in asked.trees:
        path = file_path("region-bricks", release, region)
        try:
            head, _ = _first_bytes(asked, mirror, path, 16)
        except NotFoundError:
            head = b""
        if not head.startswith(GZIP):
            lacking.append(path)
    return _counted(len(asked.trees), lacking)


def _counted(number: int, lacking: Sequence[str]) -> Answer:
    """Return the answer for so many things, of which some are not there."""
    more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
    text = f"; lacks {', '.join(lacking[:5])}{more}" if lacking else ""
    return Answer(not lacking, f"{number - len(lacking)} of {number}{text}")


def mirror_checksums(asked: Asked, mirror: Mirror) -> Answer:
    """Compare a file with the list of its folder."""
    path = file_path("coadd-checksums", RELEASE, "south", brick=BRICK)
    url = str(mirror.locate(path))
    digests = parse_checksums(asked.client.read(url, SMALL_BYTES).decode(), url)
    data_path = _coadd("nexp")
    data = asked.client.read(str(mirror.locate(data_path)), SMALL_BYTES)
    digest = digests.get(data_path.rpartition("/")[2])
    same = digest == hashlib.sha256(data).hexdigest()
    state = "its own" if same else "another one" if digest else "none"
    return Answer(same, f"{len(digests)} files in the list; for the nexp image {state}")


# ---- viewer --------------------------------------------------------------------------------------


def _rendered(asked: Asked, **parameters: Any) -> fits.HDUList:
    """Return the answer to a question for a small rendered cutout."""
    with asked.viewer.fits("cutout.fits", **{**PLACE, "size": SIZE, **parameters}) as hdul:
        return hdul


def viewer_cutout(asked: Asked) -> Answer:
    """Compare a rendered cutout with what was asked for."""
    header = _rendered(asked, bands="r")[0].header
    scale_arcsec = 3600 * float(header["CD2_2"])
    shape, bands = (header["NAXIS2"], header["NAXIS1"]), header["BANDS"]
    kind = str(header["IMAGETYP"]).strip()
    holds = shape == (SIZE, SIZE) and bands.strip() == "r" and kind == "IMAGE"
    holds &= header["NAXIS"] == 2 and abs(scale_arcsec - PIXEL_SCALE_ARCSEC) < 1e-4
    return Answer(holds, f"{kind} {bands}, {shape[0]} x {shape[1]}, {scale_arcsec:.3f} arcsec")


def viewer_native(asked: Asked) -> Answer:
    """Look at the pixels of a brick as they are."""
    box = Box(1800, 1800 + SIZE, 1800, 1800 + SIZE)
    parameters: dict[str, Any] = dict(subimage_parameters(LAYER, BRICK, box, "r"))
    names = ("BRICK", "BAND", "IMAGETYP")
    with asked.viewer.fits("cutout.fits", **parameters) as hdul:
        found = [tuple(str(hdu.header.get(name)).strip() for name in names) for hdu in hdul[1:]]
        holds = found == [(BRICK, "r", "image"), (BRICK, "r", "invvar")]
        holds &= all("BRICK_X0" in hdu.header for hdu in hdul[1:])
    return Answer(holds, "; ".join(" ".join(words) for words in found) or "no images")


def viewer_picture(asked: Asked) -> Answer:
    """Ask for a picture."""
    with asked.viewer.picture(**PLACE, size=SIZE) as picture:
        return Answer(True, f"a JPEG of {picture.shape[0]} x {picture.shape[1]} pixels")


def unknown_layer(asked: Asked) -> Answer:
    """Ask for a layer that nobody has."""
    url = asked.viewer.address("cutout.fits", **{**PLACE, "layer": "no-layer"}, size=SIZE)
    text = asked.viewer_client.read(url, SMALL_BYTES)[:40].strip()
    seen = f"status 200 and {text.decode('ascii', 'replace')!r}"
    return Answer(text.startswith(NO_SUCH_LAYER), seen)


def unknown_bands(asked: Asked) -> Answer:
    """Ask for bands in a wrong form."""
    bands = str(_rendered(asked, bands="g,r,z")[0].header["BANDS"]).strip()
    return Answer(bands == "griz", f"bands=g,r,z gave {bands}")


def largest_size(asked: Asked) -> Answer:
    """Ask for more than the viewer renders."""
    shape = _rendered(asked, width=MAX_REQUEST_PIX + 100, height=2, bands="r")[0].shape
    return Answer(shape == (2, MAX_REQUEST_PIX), f"width={MAX_REQUEST_PIX + 100} gave {shape[-1]}")


def dropped_invvar(asked: Asked) -> Answer:
    """Ask for invvar at a scale that has it, and at one that has not."""
    numbers = []
    for scale_arcsec in (0.5, INVVAR_LIMIT_ARCSEC + 0.1):
        options = {"bands": "r", "pixscale": f"{scale_arcsec:.3f}", "invvar": True}
        numbers.append(len(_rendered(asked, **options)))
    return Answer(numbers == [2, 1], f"{numbers[0]} images at 0.5 arcsec, {numbers[1]} at 0.624")


def empty_cutout(asked: Asked) -> Answer:
    """Ask for a cutout where nothing was observed."""
    try:
        hdul = _rendered(asked, **EMPTY, bands="r")
    except ServiceDownError as error:
        if error.status != 500:
            raise
        return Answer(True, "status 500")
    is_zero = not np.any(hdul[0].data)
    return Answer(is_zero, "zeros" if is_zero else "an image with values")


def empty_picture(asked: Asked) -> Answer:
    """Ask for a picture where nothing was observed."""
    with asked.viewer.picture(**EMPTY, size=SIZE) as picture:
        levels = np.unique(picture)
    return Answer(levels.tolist() == [BLANK], f"levels {levels.min()} to {levels.max()}")


def viewer_psf(asked: Asked) -> Answer:
    """Look at a PSF."""
    with asked.viewer.fits("coadd-psf/", **PLACE, bands="r") as hdul:
        band, shape = str(hdul[0].header["BAND"]).strip(), hdul[0].shape
        total = float(hdul[0].data.sum())
    holds = band == "r" and ("south", shape[0]) in CAMERAS and abs(total - 1) < 0.05
    return Answer(holds, f"{band}, {shape[0]} x {shape[1]}, sum {total:.3f}")


def list_of_bricks(asked: Asked) -> Answer:
    """Look at the list of bricks round a place."""
    names = asked.viewer.bricks(LAYER, *PLACE_DEG, 0.001)
    return Answer(BRICK in names, f"bricks {', '.join(sorted(names)) or 'none'}")


def list_of_ccds(asked: Asked) -> Answer:
    """Look at the list of CCDs round a place."""
    outlines = asked.viewer.outlines("ccds/", LAYER, *PLACE_DEG, RADIUS_DEG)
    odd = [name for name, _ in outlines if not CCD_NAME.fullmatch(name)]
    holds = bool(outlines) and not odd and all(len(corners) == 4 for _, corners in outlines)
    return Answer(holds, f"{len(outlines)} CCDs" + (f", among them {odd[0]!r}" if odd else ""))


def viewer_catalogue(asked: Asked) -> Answer:
    """Look at the rows of a small box."""
    (ra, dec), reach = PLACE_DEG, RADIUS_DEG
    box: Keywords = {"ralo": ra - reach, "rahi": ra + reach}
    box |= {"declo": dec - reach, "dechi": dec + reach}
    with asked.viewer.fits(f"{LAYER}/cat.fits", **box) as hdul:
        names = {name.lower() for name in hdul[1].columns.names}
    lacking = {"ra", "dec", "release", "brickid", "objid", "type", "flux_r"} - names
    without = f" without {', '.join(sorted(lacking))}" if lacking else ""
    return Answer(not lacking, f"{len(hdul[1].data)} rows{without}")


def viewer_layers(asked: Asked) -> Answer:
    """Tell which releases have the layer that the package knows."""
    unknown = []
    for release in RELEASES:
        name = layer_of(release).name
        url = asked.viewer.address("cutout.jpg", **{**PLACE, "layer": name}, size=SIZE)
        if asked.viewer_client.read(url, SMALL_BYTES)[:2] != b"\xff\xd8":
            unknown.append(name)
    return _counted(len(RELEASES), unknown)


# ---- catalogue, archive, names -------------------------------------------------------------------


def tap_tables(asked: Asked) -> Answer:
    """Tell which releases have a table."""
    table = asked.tap("SELECT table_name FROM tap_schema.tables").table
    names = {str(name).lower() for name in table["table_name"]}
    expected = [f"ls_{name}.tractor" for name in RELEASES if RELEASES[name].number >= 8]
    lacking = [name for name in expected if name not in names]
    return _counted(len(expected), lacking)


def tap_columns(asked: Asked) -> Answer:
    """Compare the columns of a table with those of the survey."""
    query = f"SELECT column_name FROM tap_schema.columns WHERE table_name = '{TAP_TABLE}'"
    names = {str(name).lower().strip('"') for name in asked.tap(query).table["column_name"]}
    schema = tractor_columns(RELEASE)
    expected = [n for n in schema if schema[n].in_tap and n != "dchisq"] + ["ls_id", *DCHISQ]
    lacking = [name for name in expected if name not in names]
    return _counted(len(expected), lacking)


def _select(where: str) -> str:
    return f'SELECT t.ra, t.dec, t."by" FROM {TAP_TABLE} AS t WHERE {where}'


def tap_box(asked: Asked) -> Answer:
    """Ask for the rows of a box."""
    table = asked.tap(_select(box_where(CIRCLE))).table
    inside = CIRCLE.contains(np.asarray(table["ra"]), np.asarray(table["dec"]))
    return Answer(bool(inside.any()), f"{len(table)} rows, {inside.sum()} of them in the circle")


def tap_cone(asked: Asked) -> Answer:
    """Ask for the rows of a cone in the form of Q3C."""
    table = asked.tap(_select(circle_where(CIRCLE))).table
    inside = Circle(*PLACE_DEG, RADIUS_DEG + 1e-5).contains(
        np.asarray(table["ra"]), np.asarray(table["dec"])
    )
    holds = len(table) > 0 and bool(inside.all())
    return Answer(holds, f"{len(table)} rows, {(~inside).sum()} of them outside")


def tap_limit(asked: Asked) -> Answer:
    """Ask for fewer rows than there are."""
    answer = asked.tap(_select(box_where(CIRCLE)), maxrec=2)
    text = "said to be cut" if answer.is_cut else "not said to be cut"
    return Answer(answer.is_cut and len(answer.table) == 2, f"{len(answer.table)} rows, {text}")


def mast_columns(asked: Asked) -> Answer:
    """Compare the columns of the search with those that are read."""
    from astroquery.mast import conf as mast_conf

    from ..jwst_stage.mission_search import COLUMNS, MissionSearch

    with asked.session() as session:
        columns = MissionSearch(mast_conf.server.rstrip("/"), session).columns
    lacking = [COLUMNS[key][0] for key, names in columns.items() if not names]
    return _counted(len(columns), lacking)


def _uncals(search: MissionSearch, datasets: set[str]) -> list[dict]:
    """Return the uncal files of the first dataset, as they are listed."""
    listed = search.products(sorted(datasets)[:1]) if datasets else {}
    products = [product for files in listed.values() for product in files.values()]
    return [p for p in products if str(p.get("filename")).endswith("_uncal.fits")]


def mast_file(asked: Asked) -> Answer:
    """Read the beginning of one uncal file, and compare its length with the list's."""
    from astroquery.mast import conf as mast_conf

    from ..jwst_stage.archive_jobs import url_of
    from ..jwst_stage.mission_search import MissionSearch

    server = mast_conf.server.rstrip("/")
    with asked.session() as session:
        search = MissionSearch(server, session)
        rows = search.search({"level": "1b", "program": str(asked.program), "observation": "1"})
        uncals = _uncals(search, {str(row["dataset"]) for row in rows})
    if not uncals:
        return Answer(False, f"{len(rows)} rows of program {asked.program}, no uncal file")
    smallest = min(uncals, key=lambda product: int(product["size"]))
    address = url_of(server, smallest["uri"])
    try:
        head, version = fetch_range(asked.client, address, 0, 80, receive=lambda response: None)
    except WholeFileAnswer:
        return Answer(False, "the whole file came")
    holds = head.startswith(b"SIMPLE") and version.size == int(smallest["size"])
    text = f"{smallest['filename']} has {version.size} bytes"
    return Answer(holds, text if holds else f"{text}, listed with {smallest['size']}")


def crds_context(asked: Asked) -> Answer:
    """Look at the newest context, and at where its files are."""
    from ..jwst_stage.crds_cache import CrdsServer, crds_environment
    from ..jwst_stage.references import SERVER

    server = CrdsServer(asked.crds_url or crds_environment().server_url or SERVER)
    context = server.context("latest", "")
    holds = CONTEXT.fullmatch(context) is not None
    return Answer(holds, f"{context} at {server.file_url(context)}")


def names_of_objects(asked: Asked) -> Answer:
    """Look up one object that is known, and one that is not."""
    unknown = "no such object 0"
    places = resolve_names([asked.name, unknown])
    place = places[asked.name]
    near = place is not None and np.allclose(place, asked.name_deg, atol=0.01)
    text = "nowhere" if place is None else f"{place[0]:.4f} {place[1]:+.4f}"
    none = "nowhere" if places[unknown] is None else "somewhere"
    return Answer(near and places[unknown] is None, f"{asked.name} at {text}, {unknown} {none}")
