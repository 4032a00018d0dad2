"""The tables of the simulated TAP service, named and typed as Astro Data Lab has them."""

import sqlite3
from functools import cache
from typing import NamedTuple

import astropy.units as u
import numpy as np
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord

from ..survey import bricks, releases
from . import catalog, pixels
from .tractor_columns import OPTICAL, WISE, band_of, tractor_columns

__all__ = ["NO_VALUE", "TapColumn", "TapTable", "open_database", "tap_tables"]

NO_VALUE = -9999
"""What the columns hold that the north does not have, in tables of both regions."""

_RELEASES = {
    "dr8": ("tractor", "tractor_n", "tractor_s"),
    "dr9": ("tractor", "tractor_n", "tractor_s"),
    "dr10": ("tractor", "tractor_s"),
    "dr11": ("tractor", "tractor_n", "tractor_s"),
}
_REGIONS = {"tractor": "", "tractor_n": "north", "tractor_s": "south"}
# In tables of their own, or nowhere.
_LEFT_OUT = ("apflux", "lc_", "ngood_")
_ORDER = ("i8", "f8", "i4", "f4", "i2", "S4", "S3", "S2", "S8")
_SQL_TYPES = {"i": "INTEGER", "f": "REAL", "S": "TEXT"}
_VOTABLE_TYPES = {"i8": "long", "i4": "int", "i2": "short", "f8": "double", "f4": "float"}
_NAN = float("inf")


class TapColumn(NamedTuple):
    """One column of a table.

    Attributes
    ----------
    name : str
        Lower case.
    kind : str
        Type in numpy's notation, e.g. ``'f4'``.
    unit : str
        Empty for all but ``shape_r``, as in the service.
    """

    name: str
    kind: str
    unit: str = ""

    @property
    def datatype(self):
        """The type as VOTable calls it."""
        return _VOTABLE_TYPES.get(self.kind, "char")


class TapTable(NamedTuple):
    """One table.

    Attributes
    ----------
    name : str
        ``schema.table``.
    columns : tuple of TapColumn
        In order.
    description : str
        One line.
    """

    name: str
    columns: tuple
    description: str


def _bands(release):
    bands = {band for r in ("north", "south") for band in releases.get_tree(release, r).bands}
    return (*(band for band in OPTICAL if band in bands), *WISE)


def _colours(release):
    colours = [("g", "r"), ("r", "z"), ("z", "w1"), ("w1", "w2"), ("w2", "w3"), ("w3", "w4")]
    return colours + ([("r", "i"), ("i", "z")] if "i" in _bands(release) else [])


@cache
def _columns(release, region):
    """Return the columns of a table; ``region`` is empty for those of both."""
    tree = releases.get_tree(release, region or "south")
    bands = (*tree.bands, *WISE)
    found = [TapColumn("ls_id", "i8")]
    for column in tractor_columns(release, region or "south"):
        if column.name.startswith(_LEFT_OUT):
            continue
        kind = "i2" if column.kind in ("?", "u1") else column.kind
        names = [column.name]
        if column.length > 1:
            names = [f"{column.name}_{number + 1}" for number in range(column.length)]
        unit = column.unit if column.name == "shape_r" else ""
        found += [TapColumn(name, kind, unit) for name in names]
    for family in ("mag", "dered_mag", "dered_flux", "snr"):
        found += [TapColumn(f"{family}_{band}", "f4") for band in bands]
    for first, second in _colours(release):
        if {first, second} <= set(bands):
            found.append(TapColumn(f"{first}_{second}", "f4"))
    found += [TapColumn(name, "f8") for name in ("elat", "elon", "glat", "glon")]
    found.append(TapColumn("random_id", "f4"))
    found += [TapColumn(name, "i4") for name in ("htm9", "nest4096", "ring256")]
    return tuple(sorted(found, key=lambda column: _ORDER.index(column.kind)))


def _magnitude(flux):
    """Return AB magnitudes, infinity (which stands for NaN) where there is no flux."""
    found = np.full(len(flux), _NAN)
    positive = flux > 0
    found[positive] = 22.5 - 2.5 * np.log10(flux[positive])
    return found


def _ls_id(rows):
    """Return the ids as each release packs them."""
    parts = [rows[name].astype(np.int64) for name in ("release", "brickid", "objid")]
    shifts = np.where(rows["release"] >= 11000, 42, 40), np.where(rows["release"] >= 11000, 22, 16)
    return (parts[0] << shifts[0]) | (parts[1] << shifts[1]) | parts[2]


def _values(release, region):
    """Return the columns of the primary rows of one region as arrays."""
    rows = catalog.region_rows(release, region)
    tree = releases.get_tree(release, region)
    values = {"ls_id": _ls_id(rows)}
    for name in rows.dtype.names:
        column = rows[name]
        if column.ndim == 2:
            values |= {f"{name}_{i + 1}": column[:, i] for i in range(column.shape[1])}
        elif column.dtype.kind == "S":
            values[name] = np.char.rstrip(np.char.decode(column, "ascii"))
        else:
            values[name] = column.astype(int) if column.dtype.kind in ("b", "u") else column
    for band in (*tree.bands, *WISE):
        flux = rows[f"flux_{band}"].astype(float)
        bare = flux / rows[f"mw_transmission_{band}"]
        values[f"mag_{band}"], values[f"dered_mag_{band}"] = _magnitude(flux), _magnitude(bare)
        values[f"dered_flux_{band}"] = bare
        values[f"snr_{band}"] = flux * np.sqrt(rows[f"flux_ivar_{band}"].astype(float))
    for first, second in _colours(release):
        if f"mag_{first}" in values and f"mag_{second}" in values:
            blue, red = values[f"mag_{first}"], values[f"mag_{second}"]
            there = np.isfinite(blue) & np.isfinite(red)
            colour = np.full(len(rows), _NAN)
            colour[there] = blue[there] - red[there]
            values[f"{first}_{second}"] = colour
    place = SkyCoord(rows["ra"], rows["dec"], unit=u.deg)
    galactic, ecliptic = place.galactic, place.transform_to(BarycentricMeanEcliptic())
    values["glat"], values["glon"] = galactic.b.deg, galactic.l.deg
    values["elat"], values["elon"] = ecliptic.lat.deg, ecliptic.lon.deg
    at = rows["ra"], rows["dec"]
    values["htm9"] = pixels.htm(9, *at)
    values["nest4096"] = pixels.healpix_nested(4096, *at)
    values["ring256"] = pixels.healpix_ring(256, *at)
    values["random_id"] = np.random.default_rng(rows["objid"].sum()).uniform(0, 100, len(rows))
    return values


def _needs_i(name):
    """Tell whether a column is made from the i band."""
    return band_of(name) == "i" or name in ("r_i", "i_z")


def _table_rows(release, region):
    """Yield the rows of a table; of each source the official one in tables of both regions."""
    columns = _columns(release, region)
    for part in (region,) if region else ("south", "north"):
        values = _values(release, part)
        count = len(values["ra"])
        chosen = np.ones(count, bool)
        if not region:
            chosen = bricks.is_north(values["ra"], values["dec"]) == (part == "north")
        listed = []
        for column in columns:
            if column.name in values:
                made = values[column.name]
                if column.kind == "f4":
                    made = made.astype(np.float32)
            elif _needs_i(column.name):
                made = np.full(count, NO_VALUE)
            else:
                msg = f"column {column.name!r} of {release} {part} was not made"
                raise RuntimeError(msg)
            kept = made[chosen].tolist()
            # Empty strings are NULL there.
            listed.append([None if value == "" else value for value in kept])
        yield from zip(*listed, strict=True)


@cache
def tap_tables():
    """Return the tables of the service, without TAP_SCHEMA.

    Returns
    -------
    dict of str to TapTable
    """
    found = {}
    for release, names in _RELEASES.items():
        for table in names:
            region = _REGIONS[table]
            name = f"ls_{release}.{table}"
            columns = _columns(release, region)
            if release == "dr11" and region != "north":
                columns = _swapped(columns)
            what = f"{region or 'south and north'} of {release.upper()}"
            found[name] = TapTable(name, columns, f"Simulated Tractor catalogue, {what}")
    return found


def _swapped(columns):
    """Return the columns with the names of two changed for each other, as that table had them."""
    other = {"type": "ref_cat", "ref_cat": "type"}
    return tuple(column._replace(name=other.get(column.name, column.name)) for column in columns)


_SCHEMA_TABLES = {
    "schemas": ("schema_name", "description", "utype"),
    "tables": ("schema_name", "table_name", "table_type", "description", "utype"),
    "columns": (
        "table_name",
        "column_name",
        "description",
        "unit",
        "ucd",
        "utype",
        "datatype",
        "size",
        "principal",
        "indexed",
        "std",
    ),
    "keys": ("key_id", "from_table", "target_table", "description", "utype"),
    "key_columns": ("key_id", "from_column", "target_column"),
}
_SCHEMA_INTEGERS = {"size", "principal", "indexed", "std"}


@cache
def schema_tables():
    """Return the tables of TAP_SCHEMA, as `tap_tables`."""
    found = {}
    for table, names in _SCHEMA_TABLES.items():
        columns = tuple(TapColumn(n, "i4" if n in _SCHEMA_INTEGERS else "S64") for n in names)
        found[f"tap_schema.{table}"] = TapTable(f"tap_schema.{table}", columns, "Metadata")
    return found


def _schema_rows():
    everything = {**tap_tables(), **schema_tables()}
    schemas = sorted({name.split(".")[0] for name in everything})
    indexed = ("ra", "dec", "ls_id", "objid", "brickid", "random_id")
    return {
        "schemas": [(name, "Simulated", None) for name in schemas],
        "tables": [
            (name.split(".")[0], name, "table", table.description, None)
            for name, table in everything.items()
        ],
        "columns": [
            (
                *(name, column.name, "", column.unit, "", "", column.datatype),
                *(None if column.kind[0] != "S" else int(column.kind[1:]), 0),
                *(int(column.name in indexed), 0),
            )
            for name, table in everything.items()
            for column in table.columns
        ],
        "keys": [],
        "key_columns": [],
    }


def open_database():
    """Return a database in memory with every table.

    Returns
    -------
    `~sqlite3.Connection`
        One schema per release, and ``tap_schema``.  Where a number is NaN it holds infinity: sqlite
        would make NULL of it, and infinity compares as the service's NaN does, greater than
        everything.
    """
    database = sqlite3.connect(":memory:", check_same_thread=False)
    for schema in (*(f"ls_{release}" for release in _RELEASES), "tap_schema"):
        database.execute(f"ATTACH ':memory:' AS {schema}")
    for release, names in _RELEASES.items():
        for table in names:
            name = f"ls_{release}.{table}"
            _fill(database, tap_tables()[name], _table_rows(release, _REGIONS[table]))
    for table, rows in _schema_rows().items():
        _fill(database, schema_tables()[f"tap_schema.{table}"], rows)
    database.commit()
    return database


def _fill(database, table, rows):
    listed = ", ".join(f'"{c.name}" {_SQL_TYPES[c.kind[0]]}' for c in table.columns)
    database.execute(f"CREATE TABLE {table.name} ({listed})")
    places = ", ".join("?" * len(table.columns))
    database.executemany(f"INSERT INTO {table.name} VALUES ({places})", rows)
