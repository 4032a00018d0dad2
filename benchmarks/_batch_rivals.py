"""Cutouts of many targets from local files by other packages, each in a process of its own.

``python _batch_rivals.py NAME`` prints one JSON line with the seconds and the processor time of all
its processes, imports not counted.
JSON on standard input has the size in pixels, the positions in degrees, and the file of each.
"""

import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from _report import processor_seconds

__all__ = ["RIVALS"]

SCALE_ARCSEC = 0.262


def cutana_fits(asked, folder):
    """`cutana` with two workers, extraction alone, a FITS file for each target."""
    return _cutana(asked, folder, output_format="fits", do_only_cutout_extraction=True)


def cutana_zarr(asked, folder):
    """The same into zarr, which it gives of its own processing only."""
    return _cutana(asked, folder, output_format="zarr", normalisation_method="none")


def _cutana(asked, folder, **settings):
    import pandas
    from cutana import Orchestrator, get_default_config

    config = get_default_config()
    config.source_catalogue = str(Path(folder, "sources.csv"))
    config.output_dir = str(Path(folder, "cutouts"))
    config.target_resolution = asked["size"]
    config.max_workers = 2
    config.apply_flux_conversion = False
    config.fits_extensions = ["COMPRESSED_IMAGE"]
    config.selected_extensions = [{"name": "image", "ext": config.fits_extensions[0]}]
    config.channel_weights = {"image": [1.0]}
    config.skip_fits_check = True
    for name, value in settings.items():
        config[name] = value
    table = {
        "SourceID": [f"s{number}" for number in range(len(asked["places"]))],
        "RA": [ra for ra, _ in asked["places"]],
        "Dec": [dec for _, dec in asked["places"]],
        "diameter_pixel": asked["size"],
        "fits_file_paths": [str([path]) for path in asked["files"]],
    }
    pandas.DataFrame(table).to_csv(config.source_catalogue, index=False)
    return Orchestrator(config).run


def cutout_fits(asked, folder):
    """`cutout_fits.make_cutout`, one call for each target."""
    from cutout_fits.cutout import make_cutout

    radius_arcmin = asked["size"] / 2 * SCALE_ARCSEC / 60

    def call():
        rows = zip(asked["files"], asked["places"], strict=True)
        for number, (file, (ra, dec)) in enumerate(rows):
            path = str(Path(folder, f"{number}.fits"))
            make_cutout(file, path, ra, dec, radius_arcmin, disable_progress=True)

    return call


RIVALS = {
    "cutana, FITS": ("cutana", cutana_fits),
    "cutana, zarr": ("cutana", cutana_zarr),
    "cutout-fits": ("cutout-fits", cutout_fits),
}


def main():
    """Time the rival that is named."""
    package, make = RIVALS[sys.argv[1]]
    asked = json.load(sys.stdin)
    with tempfile.TemporaryDirectory(dir=asked["memory"]) as folder:
        call = make(asked, folder)
        begun, cpu_s = time.perf_counter(), processor_seconds()
        call()
        seconds, cpu_s = time.perf_counter() - begun, processor_seconds() - cpu_s
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "version": version(package)}))


if __name__ == "__main__":
    main()
