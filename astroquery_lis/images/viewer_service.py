"""Talking to the viewer: requests that it cannot misread, answers that are what they say.

The viewer answers 200 for errors and 500 for "no coverage", and knows no parameter errors.  So
every answer is recognised by its first bytes, and a 500 is only believed after asking the viewer
which bricks it has there.

The route ``cutout.fits?...&subimage`` is the only one that passes brick pixels on as they are, with
an invvar that is not summed over overlapping bricks.  `ViewerSections` answers the same questions
as the reader of brick files, so that a cutout made of it is put together by the same code.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from astropy.io import fits

from .._packages import import_optional
from ..exceptions import (
    CacheError,
    NoCoverageError,
    OptionalDependencyError,
    ServiceDownError,
    TransferError,
    UnexpectedContentError,
    refuse,
)
from ..io.bounds import Threads
from ..io.download import Downloaded, download
from ..io.http import RETRY_STATUS, HttpClient
from ..io.whole_files import check_structure, keep_bytes, reading, remove
from ..survey.bricks import brick_grid, parse_brick_name
from ..survey.layers import layer_of
from ..survey.owners import images_over
from ..survey.pixel_grids import Box
from ..survey.releases import PIXEL_SCALE_ARCSEC, Tree
from .cutout_hdus import BRICK_REACH_DEG
from .reader import Section, SectionRequest

_LAYER_OF = {"image": "image", "invvar": "image", "model": "model"}
"""Which layer has a product, of those that the viewer gives as native pixels."""

NATIVE_PRODUCTS = tuple(_LAYER_OF)
"""What the viewer gives as native pixels; the rest it resamples, or does not have."""

SLACK_PIX = 2
"""Asked for beyond the box on each side: the viewer rounds the middle to a pixel in its own way."""

MAX_REQUEST_PIX = 3000
"""Largest width or height that the viewer renders; it clamps what is larger without a word."""

MAX_CONNECTIONS = 4
MIN_TIMEOUT_S = 120.0

BLANK = 32
"""Level of the uniform grey that the viewer paints where a layer has nothing."""

PROBE_PIX = 16
OWN_LAYERS = ("ls-dr", "decals-dr", "mzls+bass")

MAGIC = {".fits": b"SIMPLE  =", ".jpg": b"\xff\xd8"}
JSON_BYTES, CATALOGUE_BYTES = 64e6, 1e9
"""Largest list of bricks or CCDs, and catalogue, that is read."""

NO_SUCH_LAYER = b"no such layer"
NO_CCDS = b"no CCDs overlapping"


def viewer_client(*, timeout_s: float, timeout_is_set: bool, **options: Any) -> HttpClient:
    """Return an HTTP client with the manners that the viewer needs.

    Four connections, and no repetition of a 500, which may mean "no coverage"; the default time-out
    is too short for large renderings.
    """
    options["max_connections"] = min(options["max_connections"], MAX_CONNECTIONS)
    return HttpClient(
        timeout_s=timeout_s if timeout_is_set else max(timeout_s, MIN_TIMEOUT_S),
        retry_status=RETRY_STATUS - {500},
        **options,
    )


@dataclass
class _Answer:
    data: bytes
    is_new: bool


class ViewerService:
    """The viewer at one address."""

    def __init__(
        self,
        client: HttpClient,
        url: str,
        location: str | Path | None = None,
        max_age_s: float | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._client = client
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:12]
        self.folder = Path(location) / f"viewer-{digest}" if location is not None else None
        self._max_age_s = max_age_s
        self.cache_error: CacheError | None = None

    def address(self, path: str, **parameters: Any) -> str:
        """Return the full address of a request; parameters that are `None` are left out."""
        values = {name: value for name, value in parameters.items() if value is not None}
        flags = "".join(f"&{name}" for name, value in values.items() if value is True)
        pairs = urlencode({name: v for name, v in values.items() if v is not True}, safe=",+")
        return f"{self.url}/{path}?{pairs}{flags}"

    @contextmanager
    def fits(
        self, path: str, *, box: tuple[float, float, float] | None = None, **parameters: Any
    ) -> Iterator[fits.HDUList]:
        """Give the HDUs of a FITS answer; ``box`` (ra, dec, radius) lets a 500 be understood.

        It is kept at the end, unless whoever asked has found that it is not what was asked for.
        """
        limit = CATALOGUE_BYTES if path.endswith("cat.fits") else _image_bytes(parameters)
        url = self.address(path, **parameters)
        with self._answer(url, ".fits", limit, box, parameters.get("layer", "")) as answer:
            with (
                reading(url, "read as FITS"),
                fits.open(io.BytesIO(answer.data), memmap=False, lazy_load_hdus=False) as hdul,
            ):
                # A copy, so that nothing refers to the bytes of the answer any more.
                hdus = fits.HDUList([hdu.copy() for hdu in hdul])
            yield hdus
            answer.is_new &= _has_bands(hdus, parameters)

    @contextmanager
    def picture(
        self, *, box: tuple[float, float, float] | None = None, **parameters: Any
    ) -> Iterator[np.ndarray]:
        """Give a picture, shape (ny, nx, 3); as `fits`."""
        pillow = import_optional("PIL.Image", "plot", "A picture of the viewer")
        url, limit = self.address("cutout.jpg", **parameters), _image_bytes(parameters)
        with self._answer(url, ".jpg", limit, box, parameters.get("layer", "")) as answer:
            with reading(url, "read as JPEG"), pillow.open(io.BytesIO(answer.data)) as image:
                picture = np.asarray(image.convert("RGB"))
            yield picture

    @contextmanager
    def _answer(
        self,
        url: str,
        ending: str,
        limit_bytes: float,
        box: tuple[float, float, float] | None,
        layer: str,
    ) -> Iterator[_Answer]:
        """Give an answer; a new one is kept if it was found right, an old one dropped if not."""
        if self.folder is None:
            yield _Answer(self._asked(url, ending, limit_bytes, box, layer), is_new=True)
            return
        path = self.folder / f"{hashlib.sha256(url.encode()).hexdigest()[:40]}{ending}"
        cached = self._cached(path)
        data = cached or self._asked(url, ending, limit_bytes, box, layer)
        answer = _Answer(data, is_new=cached is None)
        try:
            yield answer
        except UnexpectedContentError:
            _drop(path)
            raise
        if answer.is_new:
            self._keep(path, answer.data)

    def json(self, path: str, **parameters: Any) -> dict:
        """Return the content of a JSON answer, which is never cached."""
        url = self.address(path, **parameters)
        data = self._client.read(url, JSON_BYTES)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            msg = f"{url} sent no JSON: it begins with {data[:40]!r}."
            raise UnexpectedContentError(msg, url=url, cause=error) from error

    def save(self, url: str, target: Path) -> Downloaded:
        """Fetch a whole file to ``target``, or find it there."""
        return download(self._client, url, target)

    def outlines(
        self, path: str, layer: str, ra_deg: float, dec_deg: float, reach_deg: float
    ) -> list[tuple[str, np.ndarray]]:
        """Return names and corners of the ``'bricks/'`` or ``'ccds/'`` of a layer round a place."""
        ra_reach = reach_deg / max(math.cos(math.radians(dec_deg)), 1e-3)
        answer = self.json(
            path,
            ralo=f"{(ra_deg - ra_reach) % 360:.6f}",
            rahi=f"{(ra_deg + ra_reach) % 360:.6f}",
            declo=f"{max(dec_deg - reach_deg, -90):.6f}",
            dechi=f"{min(dec_deg + reach_deg, 90):.6f}",
            layer=layer,
        )
        try:
            return [(str(p["name"]), np.array(p["radecs"], float)) for p in answer["polys"]]
        except (KeyError, TypeError, ValueError) as error:
            msg = f"The viewer's list of {path[:-1]} is not as expected: {str(answer)[:60]}."
            raise UnexpectedContentError(msg, cause=error) from error

    def bricks(self, layer: str, ra_deg: float, dec_deg: float, radius_deg: float) -> set[str]:
        """Return the names of the bricks whose images a layer has round a place."""
        reach_deg = radius_deg + BRICK_REACH_DEG
        outlines = self.outlines("bricks/", layer, ra_deg, dec_deg, reach_deg)
        return {name for name, _ in outlines}

    def _asked(
        self,
        url: str,
        ending: str,
        limit_bytes: float,
        box: tuple[float, float, float] | None,
        layer: str,
    ) -> bytes:
        """Return a whole answer that has just come."""
        try:
            data = self._client.read(url, limit_bytes, needs_length=ending == ".fits")
        except ServiceDownError as error:
            if error.status == 500 and box is not None and self._has_nothing(layer, box):
                msg = f"Layer {layer} has no data at RA {box[0]:.6f}, Dec {box[1]:+.6f}."
                raise NoCoverageError(msg, url=url, status=500, cause=error) from error
            raise
        if not data.startswith(MAGIC[ending]):
            raise _unexpected(url, data, layer)
        check_structure(ending, io.BytesIO(data), url)
        return data

    def _has_nothing(self, layer: str, box: tuple[float, float, float]) -> bool:
        """Return True if a 500 meant that the layer has nothing there."""
        if not layer.startswith(OWN_LAYERS):
            return self._is_blank(layer, box)
        ra_deg, dec_deg, radius_deg = box
        try:
            bricks = map(parse_brick_name, self.bricks(layer, *box))
        except TransferError:
            return False
        # The list is of what bricks own, with a margin: a box may lie beside all of their images.
        margin_pix = radius_deg * 3600 / PIXEL_SCALE_ARCSEC
        return not images_over(bricks, ra_deg, dec_deg, margin_pix=margin_pix).any()

    def _is_blank(self, layer: str, box: tuple[float, float, float]) -> bool:
        """Return True if a small picture of a layer of another survey is grey all over."""
        try:
            ra_deg, dec_deg, radius_deg = box
            scale_arcsec = 3600 * max(2 * radius_deg / PROBE_PIX, PIXEL_SCALE_ARCSEC / 3600)
            place: dict[str, Any] = {"ra": repr(ra_deg), "dec": repr(dec_deg)}
            grid: dict[str, Any] = {"size": PROBE_PIX, "pixscale": f"{scale_arcsec:.6f}"}
            with self.picture(**place, layer=layer, **grid) as picture:
                return bool((picture == BLANK).all())
        except (TransferError, OptionalDependencyError):
            return False

    def _cached(self, path: Path) -> bytes | None:
        """Return an answer that is kept, if it is not too old; one that is damaged is dropped."""
        try:
            age_s = time.time() - path.stat().st_mtime
            if self._max_age_s is not None and age_s > self._max_age_s:
                return None
            data = path.read_bytes()
            check_structure(path, io.BytesIO(data), path)
        except OSError:
            return None
        except TransferError:
            _drop(path)
            return None
        return data

    def _keep(self, path: Path, data: bytes) -> None:
        try:
            keep_bytes(path, data)
        except CacheError as error:
            self.cache_error = error


def _drop(path: Path) -> None:
    with suppress(OSError):
        remove(path)


def _image_bytes(parameters: dict[str, Any]) -> float:
    """Return how large an answer may be: image and invvar of each band, of up to eight bricks."""
    default = parameters.get("size", 256)
    pixels = int(parameters.get("width", default)) * int(parameters.get("height", default))
    return 4e6 + 64.0 * pixels * max(len(parameters.get("bands") or ""), 4)


def _has_bands(hdus: fits.HDUList, parameters: dict[str, Any]) -> bool:
    """Return True if native pixels of every band came; else another answer may have them."""
    came = {str(hdu.header.get("BAND", "")).strip() for hdu in hdus}
    return not parameters.get("subimage") or set(parameters.get("bands") or "") <= came


def _unexpected(url: str, data: bytes, layer: str) -> Exception:
    """Return the error for an answer that is neither FITS nor JPEG."""
    text = data[:200].strip()
    if text.startswith(NO_SUCH_LAYER):
        msg = f"The viewer does not know the layer {layer!r} (any more)."
    elif text.startswith(NO_CCDS):
        msg = "No exposure of that layer and band covers the position."
        return NoCoverageError(msg, url=url, status=200)
    elif text[:1] == b"<":
        msg = f"{url} answered with a web page."
    else:
        msg = f"{url} answered with something else: {text[:60]!r}."
    return UnexpectedContentError(msg, url=url, status=200)


class ViewerSections:
    """Reads boxes of brick images through the viewer."""

    source_name = "viewer"
    evidence = "invvar"

    def __init__(self, service: ViewerService) -> None:
        self._service = service

    def read(self, requests: Sequence[SectionRequest]) -> list[Section]:
        """Read many boxes; as `~.reader.SectionReader.read`."""
        groups = _by_brick(requests)
        with Threads(MAX_CONNECTIONS, "astroquery_lis-viewer") as pool:
            answers = list(pool.map(self._read_brick, groups, groups.values()))
        sections = {request: s for answer in answers for request, s in answer.items()}
        return [sections[request] for request in requests]

    def parameters(self, requests: Sequence[SectionRequest]) -> list[dict[str, str | int | bool]]:
        """Return the parameters of everything that `read` asks the viewer for."""
        return [
            subimage_parameters(layer, brick, part, _bands(group))
            for (layer, brick, box), group in _by_brick(requests).items()
            for part in parts_of(box, SLACK_PIX)
        ]

    def prove_absent(self, tree: Tree, brick: int, lacks: str, band: str | None) -> None:
        """Do nothing: what the viewer does not show, the survey does not have."""

    def _read_brick(
        self, group: tuple[str, str, Box], requests: list[SectionRequest]
    ) -> dict[SectionRequest, Section]:
        """Return the sections of the requests for one box of one brick."""
        layer, brick, box = group
        bands = _bands(requests)
        pixels: dict[tuple[str, str | None], np.ndarray] = {}
        address = ""
        for part in parts_of(box, SLACK_PIX):
            images, address = self._read_part(layer, brick, part, bands)
            where = part.moved(-box.y0, -box.x0).slices
            for key, image in images.items():
                whole = pixels.setdefault(key, np.full(box.shape, np.nan, image.dtype))
                whole[where] = image
        sections = {}
        for request in requests:
            _, _, product, band = request.source
            # What a layer shows is its image, of the layer of models too.
            kind = "invvar" if product == "invvar" else "image"
            plane, error = pixels.get((kind, band)), self._service.cache_error
            sections[request] = Section(plane, address, self._service.url, cache_error=error)
        return sections

    def _read_part(
        self, layer: str, brick: str, part: Box, bands: str
    ) -> tuple[dict[tuple[str, str | None], np.ndarray], str]:
        """Return ``{(kind, band): pixels}`` of a part that one request can bring, and its URL."""
        parameters = subimage_parameters(layer, brick, part, bands)
        address = self._service.address("cutout.fits", **parameters)
        radius_deg = PIXEL_SCALE_ARCSEC / 3600 * max(part.shape) / 2
        try:
            box = float(parameters["ra"]), float(parameters["dec"]), radius_deg
            with self._service.fits("cutout.fits", box=box, **parameters) as hdul:
                return _images_of(hdul, brick, part, address), address
        except NoCoverageError:
            return {}, address


def _images_of(
    hdul: fits.HDUList, brick: str, part: Box, address: str
) -> dict[tuple[str, str | None], np.ndarray]:
    """Return ``{(kind, band): pixels}`` of a brick out of an answer, which may have none."""
    images: dict[tuple[str, str | None], np.ndarray] = {}
    if "SURVEY" not in hdul[0].header or any("BRICK" not in hdu.header for hdu in hdul[1:]):
        msg = f"{address} sent a FITS file that holds no pixels of bricks."
        raise UnexpectedContentError(msg, url=address)
    for hdu in hdul[1:]:
        header = hdu.header
        if str(header["BRICK"]).strip() == brick:
            kind, band = str(header.get("IMAGETYP")).strip(), str(header.get("BAND")).strip()
            images[kind, band] = _cut(hdu, part, address)
    return images


def _by_brick(
    requests: Sequence[SectionRequest],
) -> dict[tuple[str, str, Box], list[SectionRequest]]:
    """Return requests by layer, brick and box: those that one question to the viewer answers."""
    groups: dict[tuple[str, str, Box], list[SectionRequest]] = defaultdict(list)
    for request in requests:
        tree, brick, product, _ = request.source
        if product not in NATIVE_PRODUCTS:
            must = (
                "cannot be had from the viewer as native pixels; it has "
                f"{', '.join(NATIVE_PRODUCTS)}. Take source='bricks'."
            )
            refuse("products", product, must)
        layer = layer_of(tree.release, tree.region, _LAYER_OF[product])
        groups[layer.name, brick, request.box].append(request)
    return groups


def _bands(requests: Sequence[SectionRequest]) -> str:
    return "".join(dict.fromkeys(request.source[3] or "" for request in requests))


def subimage_parameters(
    layer: str, brick: str, box: Box, bands: str
) -> dict[str, str | int | bool]:
    """Return the viewer's parameters for native pixels of a brick."""
    ra, dec = brick_grid(parse_brick_name(brick)).to_sky(
        (box.x0 + box.x1 - 1) / 2, (box.y0 + box.y1 - 1) / 2
    )
    return {
        "ra": f"{float(ra):.8f}",
        "dec": f"{float(dec):.8f}",
        "layer": layer,
        "width": box.shape[1] + 2 * SLACK_PIX,
        "height": box.shape[0] + 2 * SLACK_PIX,
        "bands": bands,
        "subimage": True,
    }


def parts_of(box: Box, margin_pix: int) -> Iterator[Box]:
    """Yield the parts of a box that a request each can bring, with a margin on every side."""
    step = MAX_REQUEST_PIX - 2 * margin_pix
    for y0 in range(box.y0, box.y1, step):
        for x0 in range(box.x0, box.x1, step):
            yield Box(y0, min(y0 + step, box.y1), x0, min(x0 + step, box.x1))


def _cut(hdu: fits.ImageHDU, part: Box, address: str) -> np.ndarray:
    """Return the pixels of a part out of what the viewer sent of the brick."""
    try:
        y0, x0 = int(hdu.header["BRICK_Y0"]), int(hdu.header["BRICK_X0"])
    except (KeyError, ValueError) as error:
        msg = f"{address} sent brick pixels without their place in the brick."
        raise UnexpectedContentError(msg, url=address, cause=error) from error
    inner = part.moved(-y0, -x0)
    if not inner.is_within(*hdu.shape):
        msg = (
            f"{address} sent rows {y0}-{y0 + hdu.shape[0]} and columns {x0}-{x0 + hdu.shape[1]} "
            f"of the brick; {part} was asked."
        )
        raise UnexpectedContentError(msg, url=address)
    pixels = hdu.data[inner.slices]
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
