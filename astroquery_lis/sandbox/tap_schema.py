"""The tables of the simulated TAP service, named and typed as Astro Data Lab has them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
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
from .catalog import photo_z, photo_z_dtype
from .measurements import tractor_columns
from .web import Response, document

# What columns that the north lacks hold in tables of both regions, and indices of pixels of the
# whole sky, which are not simulated, everywhere.
NO_VALUE = -9999

_RELEASES = {
    "dr8": ("tractor", "tractor_n", "tractor_s"),
    "dr9": ("tractor", "tractor_n", "tractor_s"),
    "dr10": ("tractor", "tractor_s"),
    "dr11": ("tractor", "tractor_n", "tractor_s"),
}
_REGIONS = {"tractor": "", "tractor_n": "north", "tractor_s": "south"}
# Photometric redshifts by ls_id, and of which regions they are: those of DR10 of the south alone.
_PHOTO_Z = {
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

_SCHEMA_TABLES = {
    "schemas": "schema_name description utype",
    "tables": "schema_name table_name table_type description utype",
    "columns": (
        "table_name column_name description unit ucd utype datatype size principal indexed std"
    ),
}
_SCHEMA_INTEGERS = ("size", "principal", "indexed", "std")
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


class TapTable(NamedTuple):
    """One table; its name is ``schema.table``."""

    name: str
    columns: tuple[TapColumn, ...]
    description: str


def _colours(bands: Iterable[str]) -> list[str]:
    return [name for name in _COLOURS if set(name.split("_")) <= set(bands)]


@cache
def _columns(release: str, region: str) -> tuple[TapColumn, ...]:
    """Return the columns of a table; ``region`` is empty for those of both."""
    tree = releases.get_tree(release, region or "south")
    bands = (*tree.bands, *WISE_BANDS)
    columns = [TapColumn("ls_id", "i8")]
    for column in tractor_columns(release, region or "south"):
        if not survey_columns(release)[column.name].in_tap:
            continue
        kind = "i2" if column.kind in ("?", "u1") else column.kind
        names = [column.name]
        if column.length > 1:
            names = [f"{column.name}_{number + 1}" for number in range(column.length)]
        unit = column.unit if column.name == "shape_r" else ""
        columns += [TapColumn(name, kind, unit) for name in names]
    families = ("mag", "dered_mag", "dered_flux", "snr")
    computed = [f"{family}_{band}" for family in families for band in bands]
    computed += [*_colours(bands), "random_id"]
    columns += [TapColumn(name, "f4") for name in computed]
    columns += [TapColumn(name, "f8") for name in ("elat", "elon", "glat", "glon")]
    columns += [TapColumn(name, "i4") for name in ("htm9", "nest4096", "ring256")]
    columns.sort(key=lambda column: _ORDER.index(column.kind))
    return tuple(columns)


def _magnitude(flux: np.ndarray) -> np.ndarray:
    """Return AB magnitudes, infinity (which stands for NaN) where there is no flux."""
    magnitude = np.full(len(flux), _NAN)
    positive = flux > 0
    magnitude[positive] = sky.magnitudes(flux[positive])
    return magnitude


def _values(release: str, region: str) -> dict[str, np.ndarray]:
    """Return the columns of the primary rows of one region as arrays."""
    rows = catalog.primary_rows(release, region)[0]
    bands = (*releases.get_tree(release, region).bands, *WISE_BANDS)
    values = {"ls_id": catalog.ls_ids(rows)}
    for name in rows.dtype.names or ():
        column = rows[name]
        values[name] = column
        if column.ndim == 2:
            values |= {f"{name}_{i + 1}": column[:, i] for i in range(column.shape[1])}
    for band in bands:
        flux = rows[f"flux_{band}"].astype(float)
        bare = flux / rows[f"mw_transmission_{band}"]
        values[f"mag_{band}"], values[f"dered_mag_{band}"] = _magnitude(flux), _magnitude(bare)
        values[f"dered_flux_{band}"] = bare
        values[f"snr_{band}"] = flux * np.sqrt(rows[f"flux_ivar_{band}"].astype(float))
    for name in _colours(bands):
        blue, red = (values[f"mag_{band}"] for band in name.split("_"))
        there = np.isfinite(blue) & np.isfinite(red)
        values[name] = np.full(len(rows), _NAN)
        values[name][there] = blue[there] - red[there]
    place = SkyCoord(rows["ra"], rows["dec"], unit=u.deg)
    galactic, ecliptic = place.galactic, place.transform_to(BarycentricMeanEcliptic())
    values["glat"], values["glon"] = galactic.b.deg, galactic.l.deg
    values["elat"], values["elon"] = ecliptic.lat.deg, ecliptic.lon.deg
    values["random_id"] = np.random.default_rng(rows["objid"].sum()).uniform(0, 100, len(rows))
    return values


def _table_rows(release: str, region: str) -> Iterator[tuple]:
    """Yield the rows of a table; of each source the official one in tables of both regions."""
    for part in (region,) if region else ("south", "north"):
        values = _values(release, part)
        official = np.ones(len(values["ra"]), bool)
        if not region:
            official = bricks.is_north(values["ra"], values["dec"]) == (part == "north")
        yield from _rows(_columns(release, region), values, official)


def _rows(
    columns: Iterable[TapColumn], values: Mapping[str, np.ndarray], selected: np.ndarray
) -> Iterator[tuple]:
    """Yield the selected rows of some columns, as sqlite takes them."""
    lists: list[list] = []
    for column in columns:
        entries = values.get(column.name, np.full(len(selected), NO_VALUE))
        entries = entries[selected].astype(column.kind)
        if column.kind[0] == "S":
            # Empty strings are NULL there.
            lists.append([text.decode("ascii").rstrip() or None for text in entries])
        else:
            lists.append(entries.tolist())
    yield from zip(*lists, strict=True)


def _photo_z_columns(release: str) -> tuple[TapColumn, ...]:
    kinds = photo_z_dtype(release)
    types = [(name, kinds[name].str.lstrip("<|")) for name in kinds.names or ()]
    columns = [TapColumn("ls_id", "i8")]
    columns += [TapColumn(name, "i2" if kind == "b1" else kind) for name, kind in types]
    return tuple(columns)


def _photo_z_rows(release: str, regions: Iterable[str]) -> Iterator[tuple]:
    for region in regions:
        rows, truth_id = catalog.primary_rows(release, region)
        table = photo_z(release, rows, truth_id)
        values = {name: table[name] for name in table.dtype.names or ()}
        values["ls_id"] = catalog.ls_ids(rows)
        yield from _rows(_photo_z_columns(release), values, np.ones(len(rows), bool))


@cache
def all_tables() -> dict[str, TapTable]:
    """Return the tables of the service by name, those of TAP_SCHEMA last."""
    tables = []
    for release, names in _RELEASES.items():
        for table in names:
            region = _REGIONS[table]
            columns = _columns(release, region)
            if release == "dr11" and region != "north":
                # As these tables had them: each of the two in the other's place.
                other = {"type": "ref_cat", "ref_cat": "type"}
                columns = tuple(c._replace(name=other.get(c.name, c.name)) for c in columns)
            what = f"{region or 'south and north'} of {release.upper()}"
            description = f"Simulated Tractor catalogue, {what}"
            tables.append(TapTable(f"ls_{release}.{table}", columns, description))
    for name in _PHOTO_Z:
        release = name.partition(".")[0].removeprefix("ls_")
        description = f"Simulated photometric redshifts of {release.upper()}"
        tables.append(TapTable(name, _photo_z_columns(release), description))
    for table, text in _SCHEMA_TABLES.items():
        kinds = [(name, "i4" if name in _SCHEMA_INTEGERS else "S64") for name in text.split()]
        columns = tuple(TapColumn(*pair) for pair in kinds)
        tables.append(TapTable(f"tap_schema.{table}", columns, "Metadata"))
    return {table.name: table for table in tables}


def _schema_rows() -> dict[str, list[tuple]]:
    tables = all_tables().values()
    schemas = sorted({table.name.split(".")[0] for table in tables})
    rows: dict[str, list[tuple]] = {
        "schemas": [(name, "Simulated", None) for name in schemas],
        "tables": [(t.name.split(".")[0], t.name, "table", t.description, None) for t in tables],
        "columns": [],
    }
    for table in tables:
        for column in table.columns:
            size = int(column.kind[1:]) if column.kind[0] == "S" else None
            entry = (table.name, column.name, "", column.unit, "", "", column.datatype, size)
            rows["columns"].append((*entry, 0, int(column.name in _INDEXED), 0))
    return rows


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
    schemas = (*(f"ls_{release}" for release in _RELEASES), "tap_schema")
    for schema in schemas:
        database.execute(f"ATTACH ':memory:' AS {schema}")
    metadata = _schema_rows()
    for name, table in all_tables().items():
        schema, _, own = name.partition(".")
        rows: Iterable[tuple] = metadata.get(own, [])
        if name in _PHOTO_Z:
            rows = _photo_z_rows(schema.removeprefix("ls_"), _PHOTO_Z[name])
        elif schema != "tap_schema":
            rows = _table_rows(schema.removeprefix("ls_"), _REGIONS[own])
        # All that is known of a column stands in its type, from which `result_columns` reads it.
        listed = ", ".join(
            f'"{c.name}" {_SQL_TYPES[c.kind[0]]} {c.kind} {c.unit}' for c in table.columns
        )
        database.execute(f"CREATE TABLE {name} ({listed})")
        places = ", ".join("?" * len(table.columns))
        database.executemany(f"INSERT INTO {name} VALUES ({places})", rows)
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
