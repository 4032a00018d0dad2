"""Talking to the viewer: requests that it cannot misread, answers that are what they say.

The viewer answers 200 for errors and 500 for "no coverage", and knows no parameter errors.  So
every answer is recognised by its first bytes, and a 500 is only believed after asking the viewer
which bricks it has there.
"""

import hashlib
import io
import json
import math
import time
from pathlib import Path
from urllib.parse import urlencode

from astropy.io import fits

from ..exceptions import (
    CacheError,
    NoCoverageError,
    RateLimitedError,
    ServiceDownError,
    TransferError,
    UnexpectedContentError,
)
from ..io.download import download
from ..io.http import RETRY_STATUS, HttpClient
from ..io.store import write_bytes

__all__ = ["MAX_REQUEST_PIX", "ViewerService", "viewer_client"]

MAX_REQUEST_PIX = 3000
"""Largest width or height that the viewer renders; it clamps what is larger without a word."""

MAX_CONNECTIONS = 4
MIN_TIMEOUT_S = 120.0
BRICK_REACH_DEG = 0.02
"""A brick's image reaches this far beyond what the brick owns, and a little more."""

FITS_MAGIC = b"SIMPLE  ="
JPEG_MAGIC = b"\xff\xd8"
NO_SUCH_LAYER = b"no such layer"
NO_CCDS = b"no CCDs overlapping"


def viewer_client(*, timeout_s, timeout_is_set, **options):
    """Return an HTTP client with the manners that the viewer needs."""
    options["max_connections"] = min(options["max_connections"], MAX_CONNECTIONS)
    return HttpClient(
        timeout_s=timeout_s if timeout_is_set else max(timeout_s, MIN_TIMEOUT_S),
        retry_status=RETRY_STATUS - {500},
        **options,
    )


class ViewerService:
    """The viewer at one address."""

    def __init__(self, client, url, location=None, max_age_s=None):
        self.url = url.rstrip("/")
        self._client = client
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:12]
        self._folder = Path(location) / f"viewer-{digest}" if location is not None else None
        self._max_age_s = max_age_s
        self.cache_error = None

    @property
    def folder(self):
        """Where answers are kept, `None` if they are not."""
        return self._folder

    def address(self, path, **parameters):
        """Return the full address of a request; parameters that are `None` are left out."""
        given = {name: value for name, value in parameters.items() if value is not None}
        flags = "".join(f"&{name}" for name, value in given.items() if value is True)
        pairs = urlencode({name: v for name, v in given.items() if v is not True}, safe=",+")
        return f"{self.url}/{path}?{pairs}{flags}"

    def fits(self, path, *, box=None, **parameters):
        """Return the HDUs of a FITS answer."""
        url = self.address(path, **parameters)
        data = self._get(url, FITS_MAGIC, box, parameters.get("layer"))
        try:
            with fits.open(io.BytesIO(data), memmap=False, lazy_load_hdus=False) as hdul:
                # A copy, so that nothing refers to the bytes of the answer any more.
                return fits.HDUList([hdu.copy() for hdu in hdul])
        except (OSError, ValueError, TypeError) as error:
            msg = f"{url} sent a FITS file that cannot be read: {error}."
            raise UnexpectedContentError(msg, url=url, cause=error) from error

    def jpeg(self, path, *, box=None, **parameters):
        """Return the bytes of a JPEG answer; as `fits`."""
        url = self.address(path, **parameters)
        return self._get(url, JPEG_MAGIC, box, parameters.get("layer"))

    def json(self, path, **parameters):
        """Return the content of a JSON answer, which is never cached."""
        url = self.address(path, **parameters)
        data = self._client.fetch(url, lambda response: response.read())
        try:
            return json.loads(data)
        except ValueError as error:
            msg = f"{url} sent no JSON: it begins with {data[:40]!r}."
            raise UnexpectedContentError(msg, url=url, cause=error) from error

    def save(self, path, target):
        """Fetch a whole file to ``target``, or find it there."""
        return download(self._client, f"{self.url}/{path}", target)

    def bricks(self, layer, ra_deg, dec_deg, radius_deg):
        """Return the names of the bricks that a layer has round a place."""
        reach = radius_deg + BRICK_REACH_DEG
        ra_reach = reach / max(math.cos(math.radians(dec_deg)), 1e-3)
        answer = self.json(
            "bricks/",
            ralo=f"{(ra_deg - ra_reach) % 360:.6f}",
            rahi=f"{(ra_deg + ra_reach) % 360:.6f}",
            declo=f"{max(dec_deg - reach, -90):.6f}",
            dechi=f"{min(dec_deg + reach, 90):.6f}",
            layer=layer,
        )
        try:
            return {polygon["name"] for polygon in answer["polys"]}
        except (KeyError, TypeError) as error:
            msg = f"The viewer's list of bricks is not as expected: {str(answer)[:60]}."
            raise UnexpectedContentError(msg, cause=error) from error

    def _get(self, url, magic, box, layer):
        kept = self._kept(url, magic)
        if kept is not None:
            return kept
        try:
            data = self._client.fetch(url, lambda response: response.read())
        except (RateLimitedError, NoCoverageError):
            raise
        except ServiceDownError as error:
            if error.status == 500 and box is not None and self._has_nothing(layer, box):
                msg = f"Layer {layer} has no data at RA {box[0]:.6f}, Dec {box[1]:+.6f}."
                raise NoCoverageError(msg, url=url, status=500, cause=error) from error
            raise
        if not data.startswith(magic):
            raise _unexpected(url, data, layer)
        self._keep(url, data)
        return data

    def _has_nothing(self, layer, box):
        """Tell whether a 500 meant that the layer has nothing there."""
        if layer is None or not _is_legacy(layer):
            return False
        try:
            return not self.bricks(layer, *box)
        except TransferError:
            return False

    def _path(self, url):
        return self._folder / f"{hashlib.sha256(url.encode()).hexdigest()[:40]}.bin"

    def _kept(self, url, magic):
        if self._folder is None:
            return None
        path = self._path(url)
        try:
            age_s = time.time() - path.stat().st_mtime
            if self._max_age_s is not None and age_s > self._max_age_s:
                return None
            data = path.read_bytes()
        except OSError:
            return None
        return data if data.startswith(magic) else None

    def _keep(self, url, data):
        if self._folder is None:
            return
        path = self._path(url)
        try:
            write_bytes(path, data)
        except CacheError as error:
            self.cache_error = error


def _unexpected(url, data, layer):
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


def _is_legacy(layer):
    return layer.startswith(("ls-dr", "decals-dr", "mzls+bass"))
