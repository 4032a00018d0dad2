"""One cutout of 256 pixels, g r z, image and invvar: ranges against whole files, on the loopback.

There is no latency and no bandwidth to speak of on the loopback, so this shows bytes, requests and
the cost in the client; a slow link turns the ratio of bytes into a ratio of times.
"""

import io
import urllib.request

from _report import median_seconds, options, report
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS

from astroquery_lis import LegacySurvey, sandbox

ASKED = {"size": 256, "bands": "grz", "products": ("image", "invvar")}


def whole_files(position, urls):
    """Do what people do: fetch the files, open them, cut."""
    for url in urls:
        with urllib.request.urlopen(url) as answer, fits.open(io.BytesIO(answer.read())) as hdul:
            Cutout2D(hdul[1].data, position, 256, wcs=WCS(hdul[1].header))


def main():
    chosen = options(__doc__)
    with sandbox.serve() as sky:
        position = sky.positions["field"]
        urls = LegacySurvey.get_cutout(position, **ASKED, get_query_payload=True)["urls"]

        def count(call):
            sky.requests.clear()
            call()
            return len(sky.requests), sum(record.bytes_sent for record in sky.requests) / 1e6

        def cold():
            LegacySurvey.clear_cache()
            LegacySurvey.get_cutout(position, **ASKED)

        def moved():
            LegacySurvey.get_cutout(sky.positions["star"], **ASKED)

        cold_requests, cold_mb = count(cold)
        moved_requests, moved_mb = count(moved)
        whole_requests, whole_mb = count(lambda: whole_files(position, urls))
        seconds = median_seconds(cold, chosen.runs)
        cached = median_seconds(moved, chosen.runs)
        whole = median_seconds(lambda: whole_files(position, urls), max(chosen.runs // 2, 1))
        rows = [
            ("cold: requests", cold_requests, ""),
            ("cold: bytes", cold_mb, "MB"),
            ("cold: bytes, share of the whole files", 100 * cold_mb / whole_mb, "%"),
            ("cold: time", 1e3 * seconds, "ms"),
            ("another place in the same files: requests", moved_requests, ""),
            ("another place in the same files: bytes", moved_mb, "MB"),
            ("everything cached: time", 1e3 * cached, "ms"),
            ("whole files: requests", whole_requests, ""),
            ("whole files: bytes", whole_mb, "MB"),
            ("whole files: time relative to cold", whole / seconds, "x"),
        ]
    report("One cutout", rows, chosen)


if __name__ == "__main__":
    main()
