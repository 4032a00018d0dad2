"""The simulated MAST: search, lists of files, files and tokens, as `astroquery.mast` asks for them.

The addresses, the bodies of the requests and what the client reads of the answers are those of
`astroquery.mast` 0.4.11:

``GET search/util/api/v0.1/column_list?mission=jwst``
    a list of ``{column_name, qual_type, description}``;
``POST search/jwst/api/v0.1/search``
    JSON with ``conditions`` (a list of ``{column: value}``), ``target``, ``radius``, ``limit``,
    ``offset``, ``select_cols``, ``sort_by``, ``sort_desc``; answered with ``info``, ``results`` and
    ``totalResults``;
``POST search/jwst/api/v0.1/post_list_products``
    JSON with ``dataset_ids``; answered with ``products``;
``GET api/v0.1/Download/file?uri=mast:JWST/product/...`` and
``GET search/jwst/api/v0.1/retrieve_product?product_name=...``
    the file;
``GET whoami``
    ``{anon, attrib: {display_name}}`` for the cookie ``mast_token``.

*Inferred*: that files can be asked for by range and have an ETag, that a file in its exclusive
access period is refused with 401 to nobody and to an expired token and with 403 to somebody without
access, that a condition on an unknown column is answered with 400, and that the search has a limit
of rows of its own.
"""

from __future__ import annotations

import json
import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from fnmatch import fnmatchcase
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import numpy as np
from astropy.io import fits

from ..survey import sphere
from .sky import POSITIONS_DEG
from .web import Request, Response, error_page, file_answer, json_answer

if TYPE_CHECKING:
    from .server import Sandbox

PREFIX = "/mast"

# The token whose owner may see what is exclusive, and one that is valid and of no use here.
TOKEN, _OTHER_TOKEN = "a-token-of-the-sandbox", "a-token-of-a-stranger"
_OWNERS = {TOKEN: "An Observer", _OTHER_TOKEN: "A Stranger"}

MAX_ROWS = 50_000
MAX_DATASETS = 1000
_NUMBERS = ("integer", "float")
_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_COMPARISON = re.compile(r"(<=|>=|<|>)\s*(.+)")


class MastService:
    """Answers the requests below a prefix.

    Attributes
    ----------
    url : str
        Its address: what ``astroquery.mast.conf.server`` has to be.
    archive : JwstArchive
        What there is.
    max_rows : int
        Most rows that one answer of the search has, whatever is asked for.
    reach : int
        Rows after so many are counted and never given.
    forgets : int
        So many of the next lists of files lack their last uncal file, as has been seen.
    asked : list of tuple
        Address and ``Authorization`` of every request for a file.
    """

    def __init__(self, url: str) -> None:
        self.url = url + PREFIX
        self.archive = JwstArchive()
        self.max_rows, self.reach = MAX_ROWS, 10**9
        self.forgets = 0
        self.asked: list[tuple] = []
        self._routes = {
            ("GET", "/search/util/api/v0.1/column_list"): self._columns,
            ("POST", "/search/jwst/api/v0.1/search"): self._search,
            ("POST", "/search/jwst/api/v0.1/post_list_products"): self._products,
            ("GET", "/search/jwst/api/v0.1/retrieve_product"): self._file,
            ("GET", "/api/v0.1/Download/file"): self._file,
            ("GET", "/whoami"): self._whoami,
        }

    def __call__(self, request: Request) -> Response:
        """Return the `Response` to a `Request`."""
        path = request.path.removeprefix(PREFIX)
        method = "GET" if request.method == "HEAD" else request.method
        answer = self._routes.get((method, path))
        return answer(request) if answer else error_page(404, "MAST has no such service here.")

    def _columns(self, request: Request) -> Response:
        if parse_qs(request.query).get("mission") != ["jwst"]:
            return json_answer([])
        rows = [
            {"column_name": name, "qual_type": kind, "description": f"Simulated {name}"}
            for name, kind in COLUMNS.items()
        ]
        return json_answer(rows)

    def _search(self, request: Request) -> Response:
        body = json.loads(request.body)
        query: dict = {"select_cols": list(COLUMNS)}
        query |= dict.fromkeys(("conditions", "sort_by", "sort_desc"), ())
        query |= {name: value for name, value in body.items() if value}
        conditions = [pair for one in query["conditions"] for pair in one.items()]
        names = {*dict(conditions), *query["select_cols"], *query["sort_by"]}
        unknown = sorted(names - set(COLUMNS))
        if unknown:
            return json_answer({"msg": f"Invalid columns: {', '.join(unknown)}"}, status=400)
        rows = self.archive.search(conditions, query)
        return json_answer({"search_params": body, **self._page(rows, query)})

    def _page(self, rows: list[dict], query: dict) -> dict:
        """Return what the search tells of rows, as many as are asked for and can be had."""
        start = int(query.get("offset", 0))
        most = min(int(query.get("limit", MAX_ROWS)), self.max_rows)
        shown = rows[start : min(start + most, self.reach)]
        selected = list(dict.fromkeys([*query["select_cols"], "ArchiveFileID"]))
        return {
            "messages": [],
            "info": [{"name": name, "type": COLUMNS[name].upper()} for name in selected],
            "totalResults": len(rows),
            "results": [{name: row.get(name) for name in selected} for row in shown],
        }

    def _products(self, request: Request) -> Response:
        datasets = json.loads(request.body)["dataset_ids"]
        if len(datasets) > MAX_DATASETS:
            return json_answer({"msg": "Too many datasets"}, status=400)
        products = [product for name in datasets for product in self.archive.products(name)]
        if self.forgets > 0:
            self._forget(products)
        return json_answer({"products": products})

    def _forget(self, products: list[dict]) -> None:
        names = [product["filename"] for product in products]
        uncal = [n for n in names if n.endswith("_uncal.fits") and n in self.archive.holdings]
        if uncal:
            self.forgets -= 1
            del products[names.index(uncal[-1])]

    def _file(self, request: Request) -> Response:
        query = parse_qs(request.query)
        names = [*query.get("uri", ()), *query.get("product_name", ()), ""]
        name = names[0].rpartition("/")[2]
        self.asked.append((request.path, request.headers.get("Authorization")))
        holding = self.archive.holdings.get(name)
        if holding is None:
            return error_page(404, "MAST has no such file.")
        token = _token_of(request.headers)
        if holding.exclusive and token == _OTHER_TOKEN:
            return error_page(403, "You have no access to this program.")
        if holding.exclusive and token != TOKEN:
            return error_page(401, "You are not authorized.")
        return file_answer(holding.path, request)

    def _whoami(self, request: Request) -> Response:
        name = _OWNERS.get(_token_of(request.headers))
        return json_answer({"anon": name is None, "attrib": {"display_name": name} if name else {}})


def _token_of(headers: Message) -> str:
    """Return the token of a request: its header's, or its cookie's."""
    field = headers.get("Authorization") or ""
    if field.startswith("token "):
        return field.removeprefix("token ")
    match = re.search(r"(?:^|;\s*)mast_token=([^;]+)", headers.get("Cookie") or "")
    return match[1] if match else ""


def _near(rows: list[dict], target: str, radius_arcsec: float) -> Iterator[dict]:
    """Yield the rows within a radius, with their distance."""
    ra, dec = map(float, target.split())
    for row in rows:
        if row.get("targ_ra") is not None:
            apart_deg = float(sphere.separation_deg(ra, dec, row["targ_ra"], row["targ_dec"]))
            if apart_deg * 3600 <= radius_arcsec:
                yield {**row, "ang_sep": apart_deg * 60}


def _meets(row: dict, name: str, value: object) -> bool:
    """Return True if a row meets one of the values of a condition, with commas between them."""
    kind, entry = COLUMNS[name], row.get(name)
    if entry is None:
        return False
    read = float if kind in _NUMBERS else _spelt
    return any(_matches(entry, one.strip(), read) for one in str(value).split(","))


def _spelt(text: object) -> str:
    """Return text as MAST compares it."""
    return str(text).upper().replace(" ", "T")


def _matches(value: object, condition: str, read: Callable[[Any], Any]) -> bool:
    if condition.startswith("!"):
        return not _matches(value, condition[1:], read)
    entry = read(value)
    if ".." in condition:
        low, high = map(read, condition.split(".."))
        return low <= entry <= high
    match = _COMPARISON.fullmatch(condition)
    if match:
        return bool(_OPERATORS[match[1]](entry, read(match[2])))
    pattern = read(condition)
    return fnmatchcase(entry, pattern) if read is _spelt else bool(entry == pattern)


def serve_mast(sky: Sandbox, files: Any, *, exclusive: str | Iterable[str] = ()) -> MastService:
    """Let a running sandbox serve JWST files as MAST does: simulated ones, or your own of any mode.

    What was served before is served no more.

    Parameters
    ----------
    sky : `~astroquery_lis.sandbox.Sandbox`
        The sandbox.
    files : path-like, iterable of path-like, or object with ``uncals`` or ``rates``
        Exposures (``*_uncal.fits``, ``*_rate.fits`` and so on) with the names and keywords of the
        archive, shutter files (``*_msa.fits``) and associations (``*_asn.json``); or what
        ``simulate``, ``simulate_miri`` or ``simulate_niriss`` of ``sandbox.jwst`` gave.
    exclusive : str or iterable of str, optional
        Names of those that need the token ``sandbox.mast.TOKEN``.

    Returns
    -------
    ``MastService``
        Also to be found as ``sky.mast``; its address, also ``sky.mast_url``, is ``url``.

    Raises
    ------
    ValueError
        If a file's name is none of the archive's, or a name in ``exclusive`` is none of the files'.

    Examples
    --------
    >>> from astroquery import mast
    >>> from astroquery_lis import sandbox
    >>> from astroquery_lis.jwst_stage import JwstStage
    >>> with sandbox.serve() as sky:  # doctest: +SKIP
    ...     with mast.conf.set_temp("server", sandbox.serve_mast(sky, ["jw..._uncal.fits"]).url):
    ...         files = JwstStage.query_uncal(program=1234)
    """
    service = MastService(sky.url)
    files = getattr(files, "uncals", getattr(files, "rates", files))
    paths, closed = [Path(path) for path in _several(files)], set(_several(exclusive))
    if unknown := sorted(closed - {path.name for path in paths}):
        msg = f"exclusive: {', '.join(unknown)} is not among the names of the files."
        raise ValueError(msg)
    for path in paths:
        service.archive.add(path, exclusive=path.name in closed)
    sky.routes[:] = [route for route in sky.routes if route[0] != PREFIX + "/"]
    sky.routes.append((PREFIX + "/", service))
    sky.mast, sky.mast_url = service, service.url
    return service


def _several(files: Any) -> Iterable:
    return [files] if isinstance(files, (str, PathLike)) else files


# Columns of the search and their types.
_COLUMN_TYPES = """
ArchiveFileID integer, fileSetName string, productLevel string, program integer,
observtn integer, visit integer, instrume string, detector string, exp_type string,
filter string, pupil string, grating string, band string, opticalElements string,
subarray string, date_obs datetime, date_beg datetime, publicReleaseDate datetime,
access string, s_region string, targprop string, targ_ra float, targ_dec float, ang_sep float
"""
COLUMNS: dict[str, str] = dict(entry.split() for entry in _COLUMN_TYPES.split(","))

EXCLUSIVE = "EXCLUSIVE_ACCESS"
RELEASED = "2022-07-14T00:00:00"
NOT_YET = "2999-01-01T00:00:00"

# Columns that are what a keyword of the file says.
_KEYWORDS = (
    *("instrume", "exp_type", "filter", "pupil", "grating", "band", "subarray"),
    *("targprop", "targ_ra", "targ_dec"),
)
_EXPOSURE = re.compile(r"(jw\d{11}_\d{2}\w{3}_\d{5}(?:-seg\d{3})?)_([a-z0-9]+)_(\w+)\.fits")
_SHUTTERS = re.compile(r"(jw\d{11})_\d+_msa\.fits")
_ASSOCIATION = re.compile(r"jw\d{5}-\w+_\d+t\d+_(\w+?)([23])_\d+_asn\.json")


@dataclass
class Holding:
    """A file that can be had."""

    path: Path
    dataset: str
    exclusive: bool = False
    size: int = 0


@dataclass
class JwstArchive:
    """The files, the rows of the search, and the lists of files."""

    holdings: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)
    extra: dict = field(default_factory=lambda: defaultdict(list))

    def add(self, path: str | PathLike[str], *, exclusive: bool = False) -> None:
        """Take in an exposure, an association or a shutter file, by its name."""
        path = Path(path)
        exposure, association = _EXPOSURE.fullmatch(path.name), _ASSOCIATION.fullmatch(path.name)
        if shutters := _SHUTTERS.fullmatch(path.name):
            # It goes with every exposure of its visit.
            self._hold(path, shutters[1], exclusive)
        elif exposure:
            self._add_exposure(path, exposure, exclusive)
        elif association:
            self._add_association(path, association[2], exclusive)
        else:
            msg = f"{path.name} is not the name of a JWST exposure or association."
            raise ValueError(msg)

    def _hold(self, path: Path, dataset: str, exclusive: bool) -> None:
        self.holdings[path.name] = Holding(path, dataset, exclusive, path.stat().st_size)

    def _add_exposure(self, path: Path, name: re.Match, exclusive: bool) -> None:
        root, detector, suffix = name.groups()
        with fits.open(path) as hdul:
            header = hdul[0].header
            region = hdul["SCI"].header.get("S_REGION", "") if "SCI" in hdul else ""
        self._hold(path, root, exclusive)
        row = {
            "fileSetName": root,
            "productLevel": {"uncal": "1b", "rate": "2a", "rateints": "2a"}.get(suffix, "2b"),
            "observtn": int(root[7:10]),
            "visit": int(root[10:13]),
            **{name: header.get(name.upper()) for name in _KEYWORDS},
            "detector": header.get("DETECTOR", detector.upper()),
            "date_obs": _moment(header, "DATE-OBS"),
            "date_beg": _moment(header, "DATE-BEG") or _moment(header, "DATE-OBS"),
            "s_region": region,
        }
        elements = (row[name] for name in ("filter", "pupil", "grating"))
        row["opticalElements"] = ";".join(filter(None, elements))
        self._add_row(path, row, exclusive)
        size = path.stat().st_size
        # A hundred files of guide stars and previews go with an exposure; a few will do.
        self.extra[root] += [
            (f"{root}_{detector}_rate.fits", size * 2),
            (f"{root}_{detector}_cal.fits", size * 2),
            (f"{root}_{detector}_rate.jpg", 20_000),
            (f"{root[:13]}_gs-acq1_2022158002401_uncal.fits", 90_000),
            (f"{root[:13]}_gs-fg_2022158002401_stream.fits", 900_000),
        ]

    def _add_association(self, path: Path, level: str, exclusive: bool) -> None:
        product = json.loads(path.read_text())["products"][0]
        member = _EXPOSURE.fullmatch(product["members"][0]["expname"])
        root = member[1] if member else ""
        dataset = (level == "2" and root) or product["name"]
        self._hold(path, dataset, exclusive)
        observation = re.match(r"jw\d{5}-o(\d{3})_", path.name)
        first: dict = next((row for row in self.rows if row["fileSetName"] == root), {})
        row = {
            "fileSetName": dataset,
            "productLevel": {"2": "2b"}.get(level, level),
            "observtn": int(observation[1]) if observation else 1,
            "visit": 1,
            **{name: first.get(name) for name in ("instrume", "exp_type", "targ_ra", "targ_dec")},
        }
        self._add_row(path, row, exclusive)

    def _add_row(self, path: Path, row: dict, exclusive: bool) -> None:
        access, release = (EXCLUSIVE, NOT_YET) if exclusive else ("PUBLIC", RELEASED)
        row |= {"access": access, "publicReleaseDate": release, "program": int(path.name[2:7])}
        self.rows.append(row | {"ArchiveFileID": 1000 + len(self.rows)})

    def search(self, conditions: list[tuple], query: dict) -> list[dict]:
        """Return the rows that meet all conditions and are near the target, sorted."""
        rows = [row for row in self.rows if all(_meets(row, *pair) for pair in conditions)]
        if "target" in query:
            rows = list(_near(rows, query["target"][0], float(query.get("radius", 0))))
        order = zip(query["sort_by"], query["sort_desc"], strict=False)
        for column, descending in reversed(list(order)):
            rows.sort(key=partial(_sort_key, column), reverse=descending)
        return rows

    def products(self, dataset: str) -> list[dict]:
        """Return the files of a dataset, as the service lists them."""
        held = {
            name: (holding.size, holding.exclusive)
            for name, holding in self.holdings.items()
            if f"{dataset}_".startswith(f"{holding.dataset}_")
        }
        extra = {name: (size, False) for name, size in self.extra.get(dataset, ())}
        # Those that are held first, and as they are.
        files = held | extra | held
        return [_product(dataset, name, *facts) for name, facts in files.items()]


def _sort_key(column: str, row: dict) -> tuple:
    return row.get(column) is None, row.get(column)


def _product(dataset: str, name: str, size: int, exclusive: bool) -> dict:
    suffix = name.rpartition("_")[2].partition(".")[0]
    return {
        "product_key": f"{dataset}_{name}",
        "access": EXCLUSIVE if exclusive else "PUBLIC",
        "dataset": dataset,
        "filename": name,
        "uri": name,
        "file_suffix": f"_{suffix}",
        "category": "1b" if suffix == "uncal" else "2b",
        "size": size,
        "type": "science",
    }


def _moment(header: fits.Header, keyword: str) -> str | None:
    value = header.get(keyword)
    if value and "T" not in value and header.get("TIME-OBS"):
        value = f"{value}T{header['TIME-OBS']}"
    return value


PROGRAM = 1111
_HALF_WIDTH_DEG = 0.009
_SEED = 20220712


def example_files(folder: str | PathLike[str]) -> list[Path]:
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
        for detector, element in (("nrcb1", "F200W"), ("nrcblong", "F444W")):
            root = f"jw{PROGRAM:05d}001001_02101_{exposure:05d}"
            path = folder / f"{root}_{detector}_uncal.fits"
            hdul = _uncal(rng, detector.upper(), element, f"0{exposure}:00:00.000")
            hdul.writeto(path, overwrite=True)
            paths.append(path)
    names = [path.name.replace("_uncal", "_cal") for path in paths[::2]]
    members = [{"expname": name, "exptype": "science"} for name in names]
    product = {"name": f"jw{PROGRAM:05d}-o001_t001_nircam_clear-f200w", "members": members}
    path = folder / f"jw{PROGRAM:05d}-o001_20220801t000000_image3_00001_asn.json"
    path.write_text(json.dumps({"asn_type": "image3", "products": [product]}, indent=1))
    return [*paths, path]


def _uncal(rng: np.random.Generator, detector: str, element: str, time: str) -> fits.HDUList:
    ra, dec = POSITIONS_DEG["field"]
    cards = {
        "TELESCOP": "JWST",
        "INSTRUME": "NIRCAM",
        "DETECTOR": detector,
        "EXP_TYPE": "NRC_IMAGE",
        "FILTER": element,
        "PUPIL": "CLEAR",
        "SUBARRAY": "SUB64P",
        "DATE-OBS": "2022-07-20",
        "TIME-OBS": time,
        "TARGPROP": "FIELD",
        "TARG_RA": ra,
        "TARG_DEC": dec,
    }
    sci = fits.ImageHDU(rng.integers(9_000, 12_000, (1, 4, 64, 64)).astype("u2"), name="SCI")
    corners = _HALF_WIDTH_DEG * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) + (ra, dec)
    text = " ".join(f"{x:.9f} {y:.9f}" for x, y in corners)
    # JWST's own way of writing it, with two blanks.
    sci.header["S_REGION"] = f"POLYGON ICRS  {text}"
    return fits.HDUList([fits.PrimaryHDU(header=fits.Header(cards)), sci])
