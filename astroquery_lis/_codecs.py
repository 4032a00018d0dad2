"""Guards round the decoding of tile-compressed images.

The C code behind astropy keeps state of its own in two places and releases the interpreter's lock
meanwhile, so that threads get wrong pixels without an error (seen with astropy 8.0):

- HCOMPRESS (nexp and the masks) decodes through static variables: one at a time;
- the table of random numbers for dithered floats is made when it is first needed, without a lock:
  it is made beforehand here.
"""

import io
import threading
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from astropy.io import fits

__all__ = ["decoding"]

_hcompress = threading.Lock()
_dithers = threading.Lock()
_has_dithers = False


def decoding(hdu: object) -> AbstractContextManager[object]:
    """Return what to decode the pixels of an HDU in, so that other threads may decode too."""
    codec = getattr(hdu, "compression_type", "")
    if codec.startswith("HCOMPRESS"):
        return _hcompress
    if codec:
        _make_dithers()
    return nullcontext()


def _make_dithers() -> None:
    """Have the decoder make its table of random numbers, in one thread."""
    global _has_dithers
    if _has_dithers:
        return
    with _dithers:
        if not _has_dithers:
            # Too few pixels, or too little noise, would be kept without quantisation.
            noise = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
            stream = io.BytesIO()
            image = fits.CompImageHDU(
                noise,
                compression_type="RICE_1",
                tile_shape=(32, 32),
                quantize_method=2,
                quantize_level=-0.01,
                dither_seed=1,
            )
            fits.HDUList([fits.PrimaryHDU(), image]).writeto(stream)
            stream.seek(0)
            with fits.open(stream) as hdul:
                hdul[1].section[:, :]
            _has_dithers = True
