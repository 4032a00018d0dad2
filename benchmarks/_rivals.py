"""The same two cutouts, by us and by what a user would take instead; each in a fresh process.

Imports are done before the clock starts.  ``python _rivals.py NAME JSON`` makes the first cutout,
which finds nothing cached, and then the second, another place in the same files.  It prints one
JSON line with both durations, and waits for a line on standard input between the two.
"""

import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.nddata.utils import NoOverlapError
from astropy.wcs import WCS

__all__ = ["RIVALS"]

SIZE = 256
N_FILES = 6
BLOCK = 64 * 1024


def ours(mirror, urls, *, connections=None):
    """`LegacySurvey.get_cutout` with an empty cache."""
    from astroquery_lis import LegacySurveyClass, conf
    from astroquery_lis.images import assemble, coadds, sources  # noqa: F401 - before the clock

    conf.cache_dir = tempfile.mkdtemp()
    conf.max_workers = connections or conf.max_workers
    survey = LegacySurveyClass()
    survey.mirror = mirror

    def cut(place):
        hdul = survey.get_cutout(place, SIZE, bands="grz", products=("image", "invvar"))
        return [hdu.data for hdu in hdul[1:]]

    return cut


def whole_files(mirror, urls):
    """Download the files in parallel, open them, `Cutout2D`; the second time they are on disk."""
    import requests

    folder = tempfile.mkdtemp()

    def fetch(number):
        with open(f"{folder}/{number}.fits.fz", "wb") as file:
            file.write(requests.get(urls[number], timeout=600).content)

    def cut(place):
        from pathlib import Path

        with ThreadPoolExecutor(N_FILES) as pool:
            missing = [n for n in range(len(urls)) if not Path(f"{folder}/{n}.fits.fz").exists()]
            list(pool.map(fetch, missing))
        planes = []
        for number in range(len(urls)):
            with fits.open(f"{folder}/{number}.fits.fz") as hdul:
                wcs = WCS(hdul[1].header)
                planes.append(Cutout2D(hdul[1].data, place, SIZE, wcs=wcs).data)
        return planes

    return cut


def fsspec_defaults(mirror, urls):
    """`astropy.io.fits` with ``use_fsspec=True`` as it comes, one file after the other."""
    import aiohttp  # noqa: F401 - before the clock
    import fsspec  # noqa: F401 - before the clock

    def cut_one(url, place):
        with fits.open(url, use_fsspec=True) as hdul:
            return _section(hdul[1], place)

    return lambda place: [cut_one(url, place) for url in urls]


def fsspec_tuned(mirror, urls):
    """The same with a read-ahead of 64 kB, the files held open, one thread per file."""
    import aiohttp  # noqa: F401 - before the clock
    import fsspec

    filesystem = fsspec.filesystem("http")
    pool = ThreadPoolExecutor(N_FILES)
    opened = {}

    def cut_one(url, place):
        if url not in opened:
            file = filesystem.open(url, block_size=BLOCK, cache_type="readahead")
            opened[url] = fits.open(file, lazy_load_hdus=True)
        return _section(opened[url][1], place)

    return lambda place: list(pool.map(partial(cut_one, place=place), urls))


def astrocut_cutouts(mirror, urls):
    """`astrocut.FITSCutout` on the addresses."""
    from astrocut import FITSCutout

    def cut(place):
        return [
            hdu.data
            for url in urls
            for hdul in FITSCutout([url], place, SIZE, extension=1).fits_cutouts
            for hdu in hdul[1:]
        ]

    return cut


def _section(hdu, place):
    column, row = (int(value) for value in np.round(WCS(hdu.header).world_to_pixel(place)))
    half = SIZE // 2
    return hdu.section[row - half : row + half, column - half : column + half]


RIVALS = {
    "ours": ours,
    "ours, 24 connections": partial(ours, connections=24),
    "astropy + fsspec, tuned": fsspec_tuned,
    "astropy + fsspec, defaults": fsspec_defaults,
    "whole files + Cutout2D": whole_files,
    "astrocut": astrocut_cutouts,
}


def main():
    """Time the rival that is named."""
    name, asked = sys.argv[1], json.loads(sys.argv[2])
    places = [SkyCoord(*position, unit="deg") for position in asked["places"]]
    cut = RIVALS[name](asked["mirror"], asked["urls"])
    try:
        for place in places:
            input()
            start = time.perf_counter()
            planes = cut(place)
            seconds = time.perf_counter() - start
            print(json.dumps({"seconds": seconds, "planes": len(planes)}), flush=True)
    except NoOverlapError as error:
        print(json.dumps({"error": str(error)}), flush=True)


if __name__ == "__main__":
    main()
