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

import json
import re
from fnmatch import fnmatchcase
from urllib.parse import parse_qs

from astropy.coordinates import SkyCoord

from .files import FileTree, Request, Response, error_page
from .mast_archive import COLUMNS, JwstArchive

__all__ = ["PREFIX", "TOKEN", "MastService", "serve_mast"]

PREFIX = "/mast"

TOKEN = "a-token-of-the-sandbox"
"""The token whose owner may see what is exclusive."""

MAX_ROWS = 50_000
MAX_DATASETS = 1000
_NUMBERS = ("integer", "float")
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
    strangers : dict of str to str
        Tokens that are valid and of no use here, and whose they are.
    asked : list of tuple
        Address and ``Authorization`` of every request for a file.
    """

    def __init__(self, url, faults, prefix=PREFIX):
        self.url = url + prefix
        self.archive = JwstArchive()
        self.max_rows, self.reach = MAX_ROWS, 10**9
        self.forgets = 0
        self.strangers = {"a-token-of-a-stranger": "A Stranger"}
        self.asked = []
        self._faults, self._prefix = faults, prefix
        self._routes = {
            ("GET", "/search/util/api/v0.1/column_list"): self._columns,
            ("POST", "/search/jwst/api/v0.1/search"): self._search,
            ("POST", "/search/jwst/api/v0.1/post_list_products"): self._products,
            ("GET", "/search/jwst/api/v0.1/retrieve_product"): self._file,
            ("GET", "/api/v0.1/Download/file"): self._file,
            ("GET", "/whoami"): self._whoami,
        }

    def __call__(self, request):
        """Return the `Response` to a `Request`."""
        path = request.path.removeprefix(self._prefix)
        method = "GET" if request.method == "HEAD" else request.method
        answer = self._routes.get((method, path))
        return answer(request) if answer else error_page(404, "MAST has no such service here.")

    # ---- search ---------------------------------------------------------------------------------

    def _columns(self, request):
        if parse_qs(request.query).get("mission") != ["jwst"]:
            return _json([])
        return _json(
            [
                {"column_name": name, "qual_type": kind, "description": f"Simulated {name}"}
                for name, kind in COLUMNS.items()
            ]
        )

    def _search(self, request):
        asked = json.loads(request.body)
        conditions = [pair for one in asked.get("conditions", []) for pair in one.items()]
        names = [name for name, _ in conditions]
        names += [*(asked.get("select_cols") or ()), *(asked.get("sort_by") or ())]
        unknown = sorted(set(names) - set(COLUMNS))
        if unknown:
            return _json({"msg": f"Invalid columns: {', '.join(unknown)}"}, status=400)
        rows = [row for row in self.archive.rows if all(_meets(row, *c) for c in conditions)]
        if asked.get("target"):
            rows = list(_near(rows, asked["target"][0], float(asked["radius"])))
        order = list(zip(asked.get("sort_by") or (), asked.get("sort_desc") or (), strict=False))
        for name, descending in reversed(order):
            rows.sort(key=lambda row: (row.get(name) is None, row.get(name)), reverse=descending)
        start = int(asked.get("offset") or 0)
        stop = start + min(int(asked.get("limit") or MAX_ROWS), self.max_rows)
        stop = min(stop, self.reach)
        selected = list(dict.fromkeys([*(asked.get("select_cols") or COLUMNS), "ArchiveFileID"]))
        return _json(
            {
                "messages": [],
                "info": [{"name": name, "type": COLUMNS[name].upper()} for name in selected],
                "search_params": asked,
                "totalResults": len(rows),
                "results": [{name: row.get(name) for name in selected} for row in rows[start:stop]],
            }
        )

    def _products(self, request):
        datasets = json.loads(request.body)["dataset_ids"]
        if len(datasets) > MAX_DATASETS:
            return _json({"msg": "Too many datasets"}, status=400)
        products = [product for name in datasets for product in self.archive.products(name)]
        uncal = [
            p
            for p in products
            if p["filename"] in self.archive.holdings and p["file_suffix"] == "_uncal"
        ]
        if self.forgets > 0 and uncal:
            self.forgets -= 1
            products.remove(uncal[-1])
        return _json({"products": products})

    # ---- files ----------------------------------------------------------------------------------

    def _file(self, request):
        asked = parse_qs(request.query)
        name = (asked.get("uri") or asked.get("product_name") or [""])[0].rpartition("/")[2]
        self.asked.append((request.path, request.headers.get("Authorization")))
        holding = self.archive.holdings.get(name)
        if holding is None:
            return error_page(404, "MAST has no such file.")
        if holding.exclusive:
            token = _token_of(request.headers)
            if token in self.strangers:
                return error_page(403, "You have no access to this program.")
            if token != TOKEN:
                return error_page(401, "You are not authorized.")
        files = FileTree(holding.path.parent, "/", _Revisions(self._faults, request.path))
        inner = Request(request.method, f"/{holding.path.name}", "", request.headers)
        return files(inner)

    def _whoami(self, request):
        token = _token_of(request.headers)
        name = "An Observer" if token == TOKEN else self.strangers.get(token)
        return _json({"anon": name is None, "attrib": {"display_name": name} if name else {}})


class _Revisions:
    """Tells the revision of the address that was asked for, whatever the file is called."""

    def __init__(self, faults, path):
        self._faults, self._path = faults, path

    def revision(self, path):
        return self._faults.revision(self._path)


def _json(value, status=200):
    body = json.dumps(value).encode()
    return Response(status, {"Content-Type": "application/json; charset=utf-8"}, body)


def _token_of(headers):
    """Return the token of a request: its header's, or its cookie's."""
    given = headers.get("Authorization") or ""
    if given.startswith("token "):
        return given.removeprefix("token ")
    match = re.search(r"(?:^|;\s*)mast_token=([^;]+)", headers.get("Cookie") or "")
    return match[1] if match else ""


def _near(rows, target, radius_arcsec):
    """Yield the rows within a radius, with their distance."""
    ra, dec = map(float, target.split())
    center = SkyCoord(ra, dec, unit="deg")
    for row in rows:
        if row.get("targ_ra") is None:
            continue
        place = SkyCoord(row["targ_ra"], row["targ_dec"], unit="deg")
        apart = float(center.separation(place).arcsec)
        if apart <= radius_arcsec:
            yield {**row, "ang_sep": apart / 60}


def _meets(row, name, value):
    """Tell whether a row meets one of the values of a condition, with commas between them."""
    kind, found = COLUMNS[name], row.get(name)
    if found is None:
        return False
    return any(_matches(found, one.strip(), kind in _NUMBERS) for one in str(value).split(","))


def _matches(found, wanted, is_number):
    if wanted.startswith("!"):
        return not _matches(found, wanted[1:], is_number)
    of = float if is_number else lambda text: str(text).upper().replace(" ", "T")
    if ".." in wanted:
        low, high = wanted.split("..")
        return of(low) <= of(found) <= of(high)
    match = _COMPARISON.fullmatch(wanted)
    if match:
        a, b = of(found), of(match[2])
        return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[match[1]]
    if is_number:
        return of(found) == of(wanted)
    return fnmatchcase(of(found), of(wanted))


def serve_mast(sky, files, *, exclusive=()):
    """Let a running sandbox serve JWST files as MAST does.

    Parameters
    ----------
    sky : `~.server.Sandbox`
        The sandbox.
    files : iterable of path-like, or object with ``uncals``
        Uncal files with JWST's keywords, and association files; or what
        ``sandbox.jwst.simulate`` gave.
    exclusive : iterable of str, optional
        Names of files that need the token `TOKEN`.

    Returns
    -------
    MastService
        Also to be found as ``sky.mast``, and its address as ``sky.mast_url``.
    """
    service = MastService(sky.url, sky.faults)
    exclusive = set(exclusive)
    for path in getattr(files, "uncals", files):
        service.archive.add(path, exclusive=str(path).rpartition("/")[2] in exclusive)
    sky.routes[:] = [route for route in sky.routes if route[0] != PREFIX + "/"]
    sky.routes.append((PREFIX + "/", service))
    sky.mast, sky.mast_url = service, service.url
    return service
