"""Large boxes, and what a cutout costs when nothing has to be fetched.

A box of 10,000 pixels at the border of two rows of bricks lies over twelve.  The simulated sky has
whole files of one of them: the others are its files with the names and headers of their bricks,
written to memory.  What such a box takes is measured in a fresh process, with memory up to the
answer, of which the planes themselves are taken off.
"""

import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

from _report import median_cpu_seconds, options, report
from _served import served
from astropy import log
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS

from astroquery_lis import LegacySurvey, bricks

BRICK = "0451p000"
CENTER = SkyCoord(45.125, 0.125, unit="deg")
LARGE, N_BRICKS = 10_000, 12
PLANES = {"bands": "grz", "products": ("image", "invvar")}
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def addresses(position, size, **asked):
    return LegacySurvey.get_cutout(position, size, **asked, get_query_payload=True)["urls"]


def copy_of_brick(source, target):
    """Write a file of `BRICK` as that of another brick."""
    name = target.name.split("-")[1]
    number = bricks.parse_brick_name(name)
    ra, dec = bricks.brick_center(number)
    with fits.open(source, disable_image_compression=True) as hdul:
        place = hdul[1].fileinfo()
        header = hdul[1].header.copy()
    header["CRVAL1"], header["CRVAL2"] = float(ra), float(dec)
    for card, value in (("BRICK", name), ("BRICKNAM", name), ("BRICKID", number)):
        if card in header:
            header[card] = value
    content = bytearray(source.read_bytes())
    content[place["hdrLoc"] : place["datLoc"]] = header.tostring().encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def local_bricks(root, folder, bands):
    """Write the files of all bricks of the large box."""
    sources = [Path(url) for url in addresses(BRICK, 8, bands=bands, mirror=root)]
    for number, band in enumerate(bands):
        urls = addresses(CENTER, LARGE, bands=band, mirror=root)
        assert len(urls) == N_BRICKS, urls
        for url in urls:
            copy_of_brick(sources[number], Path(folder, Path(url).relative_to(root)))


def large(folder, bands):
    """Return (CPU seconds, MB beyond the planes) of a large box; in a process of its own."""
    begun = time.process_time()
    hdul = LegacySurvey.get_cutout(CENTER, LARGE, bands=bands, mirror=folder, cache=False)
    cpu_s = time.process_time() - begun
    planes = [hdu.data for hdu in hdul if hdu.data is not None]
    assert [plane.shape for plane in planes] == [(LARGE, LARGE)] * len(bands)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return cpu_s, peak_mb - sum(plane.nbytes for plane in planes) / 1e6


def rows_of_large(root, runs):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        local_bricks(root, folder, PLANES["bands"])
        for bands, words in (("r", "one band"), ("grz", "three bands")):
            answers = []
            for _ in range(runs):
                context = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(1, mp_context=context) as pool:
                    answers.append(pool.submit(large, folder, bands).result())
            cpu_s, beyond_mb = (median(column) for column in zip(*answers, strict=True))
            name = f"{LARGE} x {LARGE} pixels, {words}, {N_BRICKS} bricks on disk"
            yield f"{name}: processor time", cpu_s, "s"
            yield f"{name}: memory beyond the planes", beyond_mb, "MB"


def rows_of_cached(mirror, root, position, runs):
    hdus, boxes = [], []
    for path in addresses(position, 256, **PLANES, mirror=root):
        hdu = fits.open(path, memmap=False)[1]
        boxes.append(Cutout2D(hdu.data, position, 256, wcs=WCS(hdu.header)).slices_original)
        hdus.append(fits.open(path, memmap=False)[1])

    def sections():
        return [hdu.section[box] for hdu, box in zip(hdus, boxes, strict=True)]

    def cutout():
        return LegacySurvey.get_cutout(position, 256, **PLANES, mirror=mirror)

    cutout_s, sections_s = median_cpu_seconds([cutout, sections], 40 * runs)
    yield "one cutout of six planes, everything cached: processor time", 1000 * cutout_s, "ms"
    yield "its six sections, one after the other: processor time", 1000 * sections_s, "ms"
    yield "the cutout over its sections", cutout_s / sections_s, "x"


def main():
    chosen = options(__doc__)
    log.setLevel("WARNING")
    with served() as sky:
        mirror, root = sky.urls["mirror"], sky.root
        position = SkyCoord(*sky.places["star"], unit="deg")
        # Files are made when they are first asked for: not on anybody's clock.
        LegacySurvey.get_cutout(position, 256, **PLANES, mirror=mirror)
        (payload_s,) = median_cpu_seconds(
            [lambda: addresses(CENTER, LARGE, bands="r", mirror=mirror)], chosen.runs
        )
        rows = [
            (f"addresses of a box of {LARGE} pixels, 43.7': processor time", payload_s, "s"),
            *rows_of_cached(mirror, root, position, chosen.runs),
            *rows_of_large(root, chosen.runs),
        ]
    report("Large boxes, and cutouts of what is at hand", rows, chosen)


if __name__ == "__main__":
    main()
