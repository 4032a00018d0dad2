"""The faults of `bench_faults`: every kind that the sandbox has, with options that matter."""

import gzip
import io
import json

import numpy as np
from astropy.io import fits

from astroquery_lis.sandbox.faults import KINDS

__all__ = ["variants"]


def _small_fits():
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((8, 8), "f4"))]).writeto(buffer)
    return buffer.getvalue()


# Codes of HTTP, those of the seconds to wait included.
_STATUS = [
    *({"code": code} for code in (204, 206, 304, 400, 403, 404, 408, 410, 416)),
    *({"code": code} for code in (500, 503, 504, 520)),
    {"code": 429, "retry_after": 0},
    {"code": 429, "retry_after": 3600},
    {"code": 503, "retry_after": "Thu, 01 Jan 2099 00:00:00 GMT"},
    {"code": 503, "retry_after": "soon"},
]
# What is said with status 200 in place of what was asked for.
_BODIES = [
    {"content": b""},
    {"content": b"Internal error\n", "content_type": "text/plain"},
    {"content": b'{"error": "no"}', "content_type": "application/json"},
    {"content": b"[]", "content_type": "application/json"},
    {"content": b"null", "content_type": "application/json"},
    {"content": b"SIMPLE  =                    T".ljust(2880), "content_type": "image/fits"},
    {"content": b"\x89PNG\r\n\x1a\n" + bytes(100), "content_type": "image/png"},
    {"content": b"\xff\xd8\xff\xe0" + bytes(100), "content_type": "image/jpeg"},
    {"content": gzip.compress(bytes(64 << 20)), "content_type": "application/gzip"},
    {"content": _small_fits(), "content_type": "image/fits"},
    {"content": bytes(2880 * 100), "code": 206},
]
_REDIRECTS = [
    {},
    {"to": "/nowhere"},
    {"to": "file:///etc/hostname"},
    {"to": "http://127.0.0.1:1/"},
    {"to": "http://"},
    {"to": "/legacysurvey/", "code": 307},
]
_SWAPS = [
    {"path": "/legacysurvey/dr10/survey-bricks.fits.gz"},
    {"path": "/legacysurvey/dr10/south/coadd/045/0453p000/legacysurvey-0453p000-image-r.fits.fz"},
]
_RANGES = ("bytes 0-9/10", "bytes */100", "nonsense", "bytes 0-65535/18446744073709551616")
_LENGTHS = [{"by": 100}, {"by": -100}, {"value": "-1"}, {"value": "many"}]
_OPTIONS = {
    "status": _STATUS,
    "body": _BODIES,
    "redirect": _REDIRECTS,
    "swap": _SWAPS,
    "cut": [{"fraction": fraction} for fraction in (0.0, 0.5, 0.999)],
    "wrong_range": [{"shift": shift} for shift in (1, 100)],
    "short": [{"fraction": fraction} for fraction in (0.0, 0.5)],
    "slow": [{"seconds": seconds} for seconds in (0.2, 30.0)],
    "etag": [{}, {"content": True}],
    "flip": [{"stop": 2880}, {"bits": 1000}],
    "gzip": [{}, {"announced": False}],
    "content_range": [{"value": value} for value in _RANGES],
    "wrong_length": _LENGTHS,
    "no_length": [{}],
    "chunked": [{"ending": ending} for ending in ("good", "size", "cut", "none")],
    "reset": [{}, {"fraction": 0.5}],
    "hang": [{}, {"fraction": 0.5}],
    "drip": [{"seconds": 0.3}],
    "endless": [{}, {"start": b"SIMPLE  =                    T".ljust(80), "chunk": b" " * 65536}],
    "long_header": [{}],
}


def variants():
    """Return (label, kind, options) of every fault; bytes among the options are latin-1 text."""
    found = []
    for kind in KINDS:
        for options in _OPTIONS.get(kind, [{}]):
            sent = {
                k: v.decode("latin-1") if isinstance(v, bytes) else v for k, v in options.items()
            }
            label = f"{kind} {json.dumps(sent)[1:-1][:50]}".strip()
            found.append((label, kind, sent))
    return found
