"""The tables of the simulated TAP service, named and typed as Astro Data Lab has them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple
from xml.sax.saxutils import escape

import astropy.units as u
import numpy as np
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord

from ..survey import bricks, releases
from ..survey.tractor_columns import WISE_BANDS
from ..survey.tractor_columns import tractor_columns as survey_columns
from . import catalog, sky
from .catalog import photo_z
from .measurements import tractor_columns
from .web import Response, document

# What columns that the north lacks hold in tables of both regions, and indices of pixels of the
# whole sky, which are not simulated, everywhere.
NO_VALUE = -9999

# The regions of each table.  Photometric redshifts are by ls_id, those of DR10 of the south alone.
_REGIONS = {
    "ls_dr8.tractor": ("south", "north"),
    "ls_dr8.tractor_n": ("north",),
    "ls_dr8.tractor_s": ("south",),
    "ls_dr9.tractor": ("south", "north"),
    "ls_dr9.tractor_n": ("north",),
    "ls_dr9.tractor_s": ("south",),
    "ls_dr10.tractor": ("south", "north"),
    "ls_dr10.tractor_s": ("south",),
    "ls_dr11.tractor": ("south", "north"),
    "ls_dr11.tractor_n": ("north",),
    "ls_dr11.tractor_s": ("south",),
    "ls_dr9.photo_z": ("south", "north"),
    "ls_dr9.photo_z_9p1": ("south", "north"),
    "ls_dr10.photo_z": ("south",),
    "ls_dr11.photo_z": ("south", "north"),
}
_ORDER = ("i8", "f8", "i4", "f4", "i2", "S4", "S3", "S2", "S8")
_SQL_TYPES = {"i": "INTEGER", "f": "REAL", "S": "TEXT"}
_VOTABLE_TYPES = {"i8": "long", "i4": "int", "i2": "short", "f8": "double", "f4": "float"}
_COLOURS = ("g_r", "r_z", "z_w1", "w1_w2", "w2_w3", "w3_w4", "r_i", "i_z")
_NAN = float("inf")

_SCHEMA_COLUMNS = {
    "schemas": ("schema_name", "description", "utype"),
    "tables": ("schema_name", "table_name", "table_type", "description", "utype"),
    "columns": (
        *("table_name", "column_name", "description", "unit", "ucd", "utype", "datatype"),
        *("size", "principal", "indexed", "std"),
    ),
}
_SCHEMA_KINDS = dict.fromkeys(("size", "principal", "indexed", "std"), "i4")
_INDEXED = ("ra", "dec", "ls_id", "objid", "brickid", "random_id")


class TapColumn(NamedTuple):
    """One column of a table."""

    name: str
    kind: str  # in numpy's notation
    unit: str = ""  # for shape_r only, as in the service

    @property
    def datatype(self) -> str:
        """The type as VOTable calls it."""
        return _VOTABLE_TYPES.get(self.kind, "char")

    @property
    def size(self) -> int:
        """Characters of a text; 0 for a number."""
        return int(self.kind[1:]) if self.kind[0] == "S" else 0


@dataclass(frozen=True)
class TapTable:
    """One table; its name is ``schema.table``."""

    name: str
    description: str
    values: Mapping[str, np.ndarray]

    @property
    def columns(self) -> list[TapColumn]:
        """The columns: those of the values, in their order."""
        kinds = {name: entries.dtype.str.lstrip("<|") for name, entries in self.values.items()}
        units = {"shape_r": "arcsec"}
        return [TapColumn(name, kind, units.get(name, "")) for name, kind in kinds.items()]

    def rows(self) -> Iterator[tuple]:
        """Yield the rows as sqlite takes them: empty strings are NULL."""
        lists: list[list] = []
        for entries in self.values.values():
            if entries.dtype.kind == "S":
                lists.append([text.decode("ascii").rstrip() or None for text in entries])
            else:
                lists.append(entries.tolist())
        yield from zip(*lists, strict=True)


def _magnitude(flux: np.ndarray) -> np.ndarray:
    """Return AB magnitudes, infinity (which stands for NaN) where there is no flux."""
    magnitude = np.full(len(flux), _NAN)
    positive = flux > 0
    magnitude[positive] = sky.magnitudes(flux[positive])
    return magnitude


def _colours(magnitudes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the differences of magnitudes that the service has, infinity where there is none."""
    colours = {}
    for name in _COLOURS:
        pair = name.split("_")
        if set(pair) <= set(magnitudes):
            with np.errstate(invalid="ignore"):
                colour = magnitudes[pair[0]] - magnitudes[pair[1]]
            colours[name] = np.where(np.isfinite(colour), colour, _NAN)
    return colours


def _computed(rows: np.ndarray, bands: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the columns of rows that the service adds."""
    flux = {band: rows[f"flux_{band}"].astype(float) for band in bands}
    bare = {band: flux[band] / rows[f"mw_transmission_{band}"] for band in bands}
    magnitude = {band: _magnitude(flux[band]) for band in bands}
    families: dict[str, Callable[[str], np.ndarray]] = {
        "mag": magnitude.__getitem__,
        "dered_mag": lambda band: _magnitude(bare[band]),
        "dered_flux": bare.__getitem__,
        "snr": lambda band: flux[band] * np.sqrt(rows[f"flux_ivar_{band}"].astype(float)),
    }
    values = {f"{name}_{band}": of(band) for name, of in families.items() for band in bands}
    values |= _colours(magnitude)
    values["random_id"] = np.random.default_rng(rows["objid"].sum()).uniform(0, 100, len(rows))
    values = {name: entries.astype("f4") for name, entries in values.items()}
    place = SkyCoord(rows["ra"], rows["dec"], unit=u.deg)
    galactic, ecliptic = place.galactic, place.transform_to(BarycentricMeanEcliptic())
    values |= {"elat": ecliptic.lat.deg, "elon": ecliptic.lon.deg}
    values |= {"glat": galactic.b.deg, "glon": galactic.l.deg}
    names = ("htm9", "nest4096", "ring256")
    return values | {name: np.full(len(rows), NO_VALUE, "i4") for name in names}


def _tractor_values(release: str, region: str) -> dict[str, np.ndarray]:
    """Return the columns of the primary rows of one region."""
    rows, _ = catalog.primary_rows(release, region)
    values = {"ls_id": catalog.ls_ids(rows)}
    listed = survey_columns(release)
    for column in (c for c in tractor_columns(release, region) if listed[c.name].in_tap):
        kind = "i2" if column.kind in ("?", "u1") else column.kind
        names = [column.name]
        if column.length > 1:
            names = [f"{column.name}_{number + 1}" for number in range(column.length)]
        entries = rows[column.name].astype(kind).reshape(len(rows), -1)
        values |= dict(zip(names, entries.T, strict=True))
    values |= _computed(rows, (*releases.get_tree(release, region).bands, *WISE_BANDS))
    return dict(sorted(values.items(), key=lambda item: _ORDER.index(item[1].dtype.str[1:])))


def _tractor_table(name: str, release: str, regions: tuple[str, ...]) -> TapTable:
    """Return a table of sources; of each the official row in tables of both regions."""
    values = _tractor_values(release, regions[0])
    if len(regions) > 1:
        values = _joined({region: _tractor_values(release, region) for region in regions})
    if release == "dr11" and "south" in regions:
        # As these tables had them: each of the two in the other's place.
        other_name = {"type": "ref_cat", "ref_cat": "type"}
        values = {other_name.get(column, column): entries for column, entries in values.items()}
    what = " and ".join(regions)
    return TapTable(name, f"Simulated Tractor catalogue, {what} of {release.upper()}", values)


def _joined(parts: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the official rows of both regions in the columns of the first."""
    first = next(iter(parts.values()))
    columns: dict[str, list[np.ndarray]] = {name: [] for name in first}
    for region, part in parts.items():
        official = bricks.is_north(part["ra"], part["dec"]) == (region == "north")
        for name, pieces in columns.items():
            lacking = np.full(len(official), NO_VALUE)
            pieces.append(part.get(name, lacking)[official].astype(first[name].dtype))
    return {name: np.concatenate(pieces) for name, pieces in columns.items()}


def _photo_z_table(name: str, release: str, regions: tuple[str, ...]) -> TapTable:
    parts = [catalog.primary_rows(release, region) for region in regions]
    table = np.concatenate([photo_z(release, *part) for part in parts])
    values = {"ls_id": np.concatenate([catalog.ls_ids(rows) for rows, _ in parts])}
    for column in table.dtype.names or ():
        kind = table.dtype[column]
        values[column] = table[column].astype("i2" if kind.kind == "b" else kind)
    return TapTable(name, f"Simulated photometric redshifts of {release.upper()}", values)


@cache
def all_tables() -> dict[str, TapTable]:
    """Return the tables of the service by name, those of TAP_SCHEMA last."""
    tables = []
    for name, regions in _REGIONS.items():
        make = _photo_z_table if "photo_z" in name else _tractor_table
        tables.append(make(name, name.partition(".")[0].removeprefix("ls_"), regions))
    # TAP_SCHEMA lists its own tables too.
    everything = [*tables, *_metadata([*tables, *_metadata(tables)])]
    return {table.name: table for table in everything}


def _metadata(tables: list[TapTable]) -> list[TapTable]:
    """Return the tables of TAP_SCHEMA that list tables."""
    schemas = sorted({table.name.split(".")[0] for table in tables})
    rows: dict[str, list[tuple]] = {
        "schemas": [(name, "Simulated", "") for name in schemas],
        "tables": [(t.name.split(".")[0], t.name, "table", t.description, "") for t in tables],
        "columns": [
            (t.name, c.name, "", c.unit, "", "", c.datatype, c.size, 0, c.name in _INDEXED, 0)
            for t in tables
            for c in t.columns
        ],
    }
    return [_schema_table(name, entries) for name, entries in rows.items()]


def _schema_table(name: str, rows: list[tuple]) -> TapTable:
    """Return a table of TAP_SCHEMA; what is no text has no size."""
    columns = _SCHEMA_COLUMNS[name]
    table = np.array(rows, [(column, _SCHEMA_KINDS.get(column, "S64")) for column in columns])
    values = {column: table[column] for column in columns}
    if "size" in values:
        values["size"] = np.ma.masked_equal(values["size"], 0)
    return TapTable(f"tap_schema.{name}", "Metadata", values)


def open_database() -> sqlite3.Connection:
    """Return a database in memory with every table: a schema per release, and ``tap_schema``."""
    database = sqlite3.connect(":memory:", check_same_thread=False)
    for schema, image in _images().items():
        database.execute(f"ATTACH ':memory:' AS {schema}")
        database.deserialize(image, name=schema)
    return database


@cache
def _images() -> dict[str, bytes]:
    """Return the schemas of the database as they are in memory, made once for all servers.

    Where a number is NaN they hold infinity: sqlite would make NULL of it, and infinity compares
    as the service's NaN does, greater than everything.
    """
    database = sqlite3.connect(":memory:")
    schemas = list(dict.fromkeys(name.partition(".")[0] for name in all_tables()))
    for schema in schemas:
        database.execute(f"ATTACH ':memory:' AS {schema}")
    for name, table in all_tables().items():
        # All that is known of a column stands in its type, from which `result_columns` reads it.
        listed = ", ".join(
            f'"{c.name}" {_SQL_TYPES[c.kind[0]]} {c.kind} {c.unit}' for c in table.columns
        )
        database.execute(f"CREATE TABLE {name} ({listed})")
        places = ", ".join("?" * len(table.columns))
        database.executemany(f"INSERT INTO {name} VALUES ({places})", table.rows())
    database.commit()
    images = {schema: database.serialize(name=schema) for schema in schemas}
    database.close()
    return images


def result_columns(database: sqlite3.Connection, sql: str) -> list[TapColumn]:
    """Return the columns of a result; those of expressions without the type of their values."""
    database.execute(f"CREATE TEMP VIEW result AS {sql}")
    listed = database.execute("PRAGMA temp.table_info(result)").fetchall()
    database.execute("DROP VIEW temp.result")
    columns: list[TapColumn] = []
    for number, (_, name, declared, *_) in enumerate(listed, start=1):
        # A column (with :1 where sqlite repeats it), or one call, named by its function.
        word = re.match(r"[A-Za-z_]\w*(?=(:\d+)?$| ?\()", name)
        named = word[0] if word else f"column_{number}"
        while named in [column.name for column in columns]:
            named += "_"
        columns.append(TapColumn(named, *(declared.split()[1:] or [""])))
    return columns


def describe_tables() -> Response:
    """Return what VOSI says of the tables."""
    schemas: dict[str, str] = {}
    for full, table in all_tables().items():
        schema = full.split(".")[0]
        entry = f"<table>{_table_xml(table)}</table>"
        schemas[schema] = schemas.get(schema, f"<name>{schema}</name>") + entry
    text = "".join(f"<schema>{schema}</schema>" for schema in schemas.values())
    return document("tableset.xml", schemas=text)


def _table_xml(table: TapTable) -> str:
    text = f"<name>{table.name}</name><description>{escape(table.description)}</description>"
    for column in table.columns:
        size = ' arraysize="*"' if column.datatype == "char" else ""
        unit = f"<unit>{column.unit}</unit>" if column.unit else ""
        text += (
            f"<column><name>{column.name}</name>{unit}"
            f'<dataType xsi:type="vs:VOTableType"{size}>{column.datatype}</dataType></column>'
        )
    return text
