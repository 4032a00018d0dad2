"""Check what the sdist and the wheel in a folder hold: ``python check_dist.py dist``."""

import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

NEEDED_IN_WHEEL = (
    "astroquery_lis/__init__.py",
    "astroquery_lis/py.typed",
    "astroquery_lis/client/data/references.bib",
    "astroquery_lis/pictures/data/page.css",
    "astroquery_lis/pictures/data/gallery.html",
    "astroquery_lis/pictures/data/gallery.js",
)
NEEDED_IN_SDIST = ("pyproject.toml", "README.md", "LICENSE.rst", "CHANGES.rst", "PKG-INFO")
UNWANTED = ("__pycache__", ".pyc", ".pytest_cache", ".hypothesis", "_build/", ".fits", ".ipynb_ch")
EXTRAS = {"all", "batch", "bench", "dev", "docs", "footprint", "jwst", "mosaic", "parquet", "plot"}


def main():
    folder = Path(sys.argv[1])
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        about = Parser().parsestr(archive.read(metadata).decode())
        missing = [name for name in NEEDED_IN_WHEEL if name not in names]
        if not any(name.endswith("LICENSE.rst") for name in names):
            missing.append("LICENSE.rst")
    strangers = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    with tarfile.open(sdist) as archive:
        packed = [name.partition("/")[2] for name in archive.getnames()]
    missing += [name for name in NEEDED_IN_SDIST if name not in packed]
    unwanted = [name for name in names + packed if any(part in name for part in UNWANTED)]
    faults = []
    if missing:
        faults.append(f"missing: {missing}")
    if unwanted:
        faults.append(f"not wanted: {unwanted[:20]}")
    if strangers != {"astroquery_lis"}:
        faults.append(f"the wheel holds {sorted(strangers)}")
    if about["License-Expression"] != "BSD-3-Clause":
        faults.append(f"licence {about['License-Expression']!r}")
    if lacking := EXTRAS - set(about.get_all("Provides-Extra") or ()):
        faults.append(f"extras that are missing: {sorted(lacking)}")
    if faults:
        sys.exit("; ".join(faults))
    print(f"{wheel.name}: {len(names)} files; {sdist.name}: {len(packed)} files")


if __name__ == "__main__":
    main()
