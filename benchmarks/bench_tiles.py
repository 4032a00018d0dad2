"""CPU time of reading 256 x 256 pixels of a file on disk, per file, beside astropy.

Astropy's section is timed with the file held open, which is the best that it can do, and opened
each time; the whole image decoded is what ``hdul[1].data`` costs.
"""

import numpy as np
from _report import median_cpu_seconds, options, report
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from astroquery_lis import sandbox
from astroquery_lis.images.open_images import OpenImage
from astroquery_lis.survey.bricks import brick_name
from astroquery_lis.survey.paths import file_path
from astroquery_lis.survey.pixel_grids import Box

FILES = (("image", "r"), ("invvar", "r"), ("model", "r"), ("maskbits", None))


def cpu_ms(call, runs):
    """Return the median CPU time in ms."""
    return 1e3 * median_cpu_seconds([call], runs)[0]


def main():
    chosen = options(__doc__)
    rows = []
    with sandbox.serve() as sky:
        place = SkyCoord(sky.positions["field"])
        brick = str(brick_name(place.ra.deg, place.dec.deg))
        for product, band in FILES:
            path = sky.root / file_path(product, "dr10", "south", brick=brick, band=band)
            with fits.open(path) as hdul, open(path, "rb") as file:
                hdu = hdul[1]
                column, row = (
                    int(value) for value in np.round(WCS(hdu.header).world_to_pixel(place))
                )
                box = Box(row - 128, row + 128, column - 128, column + 128)
                part = (slice(box.y0, box.y1), slice(box.x0, box.x1))
                image = OpenImage(file)
                assert np.array_equal(image.read(box), hdu.section[part], equal_nan=True)
                held = cpu_ms(lambda image=image, box=box: image.read(box), 5 * chosen.runs)
                section = cpu_ms(lambda hdu=hdu, part=part: hdu.section[part], 5 * chosen.runs)

            def reopened(path=path, part=part):
                with fits.open(path) as hdul:
                    return hdul[1].section[part]

            def whole(path=path):
                with fits.open(path) as hdul:
                    return hdul[1].data.sum()

            again = cpu_ms(reopened, chosen.runs)
            label = product if band is None else f"{product}-{band}"
            rows += [
                (f"{label}: ours", held, "ms"),
                (f"{label}: astropy's section, held open", section, "ms"),
                (f"{label}: astropy's section, opened each time", again, "ms"),
                (f"{label}: the whole image", cpu_ms(whole, chosen.runs), "ms"),
                (f"{label}: ours over astropy's held open", held / section, "x"),
            ]
    report("CPU time per file", rows, chosen)


if __name__ == "__main__":
    main()
