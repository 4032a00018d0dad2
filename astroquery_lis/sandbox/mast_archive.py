"""What the simulated MAST holds: JWST files that are handed to it, and what it knows of each.

The columns of the search are those that users of the real one have printed and published:
``fileSetName``, ``productLevel``, ``program`` and so on.  *Inferred*, since nobody wrote it down:
a row stands for one detector of an exposure, a dataset for all detectors of an exposure (its name
ends before the detector's), and the list of a dataset's files has those of every level.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from astropy.io import fits

__all__ = ["COLUMNS", "Holding", "JwstArchive"]

COLUMNS = {
    "ArchiveFileID": "integer",
    "fileSetName": "string",
    "productLevel": "string",
    "program": "integer",
    "observtn": "integer",
    "visit": "integer",
    "instrume": "string",
    "detector": "string",
    "exp_type": "string",
    "filter": "string",
    "pupil": "string",
    "grating": "string",
    "band": "string",
    "opticalElements": "string",
    "subarray": "string",
    "date_obs": "datetime",
    "date_beg": "datetime",
    "publicReleaseDate": "datetime",
    "access": "string",
    "s_region": "string",
    "targprop": "string",
    "targ_ra": "float",
    "targ_dec": "float",
    "ang_sep": "float",
}
"""Columns of the search and their types."""

EXCLUSIVE = "EXCLUSIVE_ACCESS"
RELEASED = "2022-07-14T00:00:00"
NOT_YET = "2999-01-01T00:00:00"

_EXPOSURE = re.compile(r"(jw\d{11}_\d{2}\w{3}_\d{5}(?:-seg\d{3})?)_([a-z0-9]+)_(\w+)\.fits")
_ASSOCIATION = re.compile(r"jw\d{5}-\w+_\d+t\d+_(\w+?)([23])_\d+_asn\.json")


@dataclass
class Holding:
    """A file that can be had.

    Attributes
    ----------
    path : `~pathlib.Path`
        Where it is.
    dataset : str
        What it belongs to.
    exclusive : bool
        Whether a token is needed.
    size : int
        Its length, as the lists tell it.
    """

    path: Path
    dataset: str
    exclusive: bool = False
    size: int = 0


@dataclass
class JwstArchive:
    """The files, the rows of the search, and the lists of files.

    Attributes
    ----------
    holdings : dict of str to Holding
        By name of the file.
    rows : list of dict
        Rows of the search.
    extra : dict of str to list of tuple
        For each dataset, names and sizes of files that are listed and cannot be had.
    """

    holdings: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)
    extra: dict = field(default_factory=dict)

    def add(self, path, *, exclusive=False):
        """Take a file in: an uncal file with JWST's keywords, or an association.

        Parameters
        ----------
        path : path-like
            The file; its name is that of the archive.
        exclusive : bool, optional
            Whether it is in its exclusive access period.

        Raises
        ------
        ValueError
            If its name is neither of an exposure nor of an association.
        """
        path = Path(path)
        exposure, association = _EXPOSURE.fullmatch(path.name), _ASSOCIATION.fullmatch(path.name)
        if exposure:
            self._add_exposure(path, *exposure.groups(), exclusive)
        elif association:
            self._add_association(path, int(association[2]), exclusive)
        else:
            msg = f"{path.name} is not the name of a JWST exposure or association."
            raise ValueError(msg)

    def _add_exposure(self, path, root, detector, suffix, exclusive):
        with fits.open(path) as hdul:
            header = hdul[0].header
            region = hdul["SCI"].header.get("S_REGION", "") if "SCI" in hdul else ""
        size = path.stat().st_size
        self.holdings[path.name] = Holding(path, root, exclusive, size)
        level = {"uncal": "1b", "rate": "2a", "rateints": "2a"}.get(suffix, "2b")
        row = {
            "fileSetName": root,
            "productLevel": level,
            "program": int(root[2:7]),
            "observtn": int(root[7:10]),
            "visit": int(root[10:13]),
            "instrume": header.get("INSTRUME", ""),
            "detector": header.get("DETECTOR", detector.upper()),
            "exp_type": header.get("EXP_TYPE", ""),
            "filter": header.get("FILTER"),
            "pupil": header.get("PUPIL"),
            "grating": header.get("GRATING"),
            "band": header.get("BAND"),
            "subarray": header.get("SUBARRAY"),
            "date_obs": _moment(header, "DATE-OBS"),
            "date_beg": _moment(header, "DATE-BEG") or _moment(header, "DATE-OBS"),
            "s_region": region,
            "targprop": header.get("TARGPROP"),
            "targ_ra": header.get("TARG_RA"),
            "targ_dec": header.get("TARG_DEC"),
        }
        elements = [row[name] for name in ("filter", "pupil", "grating") if row[name]]
        row["opticalElements"] = ";".join(elements)
        self._add_row(row, exclusive)
        stem = f"{root}_{detector}"
        visit = root.split("_")[0]
        # A hundred files of guide stars and previews go with an exposure; a few will do.
        self.extra.setdefault(root, []).extend(
            [
                (f"{stem}_rate.fits", size * 2),
                (f"{stem}_cal.fits", size * 2),
                (f"{stem}_rate.jpg", 20_000),
                (f"{visit}_gs-acq1_2022158002401_uncal.fits", 90_000),
                (f"{visit}_gs-fg_2022158002401_stream.fits", 900_000),
            ]
        )

    def _add_association(self, path, level, exclusive):
        product = json.loads(path.read_text())["products"][0]
        members = [_EXPOSURE.fullmatch(member["expname"]) for member in product["members"]]
        dataset = product["name"]
        if level == 2 and members and members[0]:
            dataset = members[0][1]
        self.holdings[path.name] = Holding(path, dataset, exclusive, path.stat().st_size)
        observation = re.match(r"jw\d{5}-o(\d{3})_", path.name)
        first = next(
            (
                row
                for row in self.rows
                if members and members[0] and row["fileSetName"] == members[0][1]
            ),
            {},
        )
        row = {
            "fileSetName": dataset,
            "productLevel": "3" if level == 3 else "2b",
            "program": int(path.name[2:7]),
            "observtn": int(observation[1]) if observation else 1,
            "visit": 1,
            **{name: first.get(name) for name in ("instrume", "exp_type", "targ_ra", "targ_dec")},
        }
        self._add_row(row, exclusive)

    def _add_row(self, row, exclusive):
        row["ArchiveFileID"] = 1000 + len(self.rows)
        row["access"] = EXCLUSIVE if exclusive else "PUBLIC"
        row["publicReleaseDate"] = NOT_YET if exclusive else RELEASED
        self.rows.append(row)

    def products(self, dataset):
        """Return the files of a dataset, as the service lists them.

        Parameters
        ----------
        dataset : str
            Its name.

        Returns
        -------
        list of dict
        """
        held = [
            (name, one.size, one.exclusive)
            for name, one in self.holdings.items()
            if one.dataset == dataset
        ]
        names = {name for name, _, _ in held}
        extra = [(*pair, False) for pair in self.extra.get(dataset, ()) if pair[0] not in names]
        return [_product(dataset, *one) for one in held + extra]


def _product(dataset, name, size, exclusive):
    suffix = name.rpartition("_")[2].partition(".")[0]
    return {
        "product_key": f"{dataset}_{name}",
        "access": EXCLUSIVE if exclusive else "PUBLIC",
        "dataset": dataset,
        "filename": name,
        "uri": name,
        "file_suffix": f"_{suffix}",
        "category": "1b" if suffix == "uncal" else "2b",
        "size": size,
        "type": "science",
    }


def _moment(header, keyword):
    value = header.get(keyword)
    if value and "T" not in value and header.get("TIME-OBS"):
        value = f"{value}T{header['TIME-OBS']}"
    return value
