"""Tables of the documentation that are made from the code: ``.. survey-table:: NAME``."""

import inspect

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList

from astroquery_lis import LegacySurvey, conf, exceptions
from astroquery_lis.io.mirrors import REGISTERED
from astroquery_lis.survey.bitmasks import maskbits
from astroquery_lis.survey.layers import LAYERS
from astroquery_lis.survey.paths import COADD_PRODUCTS, MASK_PLANES
from astroquery_lis.survey.releases import RELEASES
from astroquery_lis.survey.tractor import TYPES

__all__ = ["TABLES", "list_table", "setup"]

CUT = 12
"""Values of a long list that are named before it is cut off."""


def _bands(bands):
    return "".join(bands) if all(len(band) == 1 for band in bands) else ", ".join(bands)


def _yes(value):
    return "yes" if value else ""


def releases():
    """Yield heading and rows: what each data release has."""
    yield "release", "north", "south", "WISE", "coadd endings", "sweeps", "note"
    for release in RELEASES.values():
        trees = (release.trees.get(region) for region in ("north", "south"))
        bands = [f"{_bands(t.bands)} in ``{t.folder}/``" if t else "" for t in trees]
        endings = " ".join(f"``{suffix}``" for suffix in release.suffixes)
        sweeps = ", ".join(release.sweep_versions)
        yield release.name, *bands, _yes(release.wise_bands), endings, sweeps, release.note


def products():
    """Yield heading and rows: every coadd product."""
    yield "product", "per band", "unit", "across bricks", "nothing there", "releases", "is"
    for name, product in {
        **COADD_PRODUCTS,
        **{name: plane for name, (_, plane) in MASK_PLANES.items()},
    }.items():
        had = [r.name for r in RELEASES.values() if name in (*r.products, *r.mask_planes)]
        yield (
            f"``{name}``",
            _yes(product.per_band),
            product.unit,
            "interpolated" if product.interpolated else "nearest",
            f"{product.no_value:g}",
            f"{had[0]} to {had[-1]}",
            product.description,
        )


def file_products():
    """Yield heading and rows: every kind of file."""
    table = LegacySurvey.list_file_products()
    yield tuple(table.colnames)
    for row in table:
        yield tuple(str(value) for value in row)


def bands():
    """Yield heading and rows: bands by release and region."""
    yield "release", "region", "tree", "optical", "WISE"
    for release in RELEASES.values():
        for region, tree in release.trees.items():
            yield release.name, region, tree.folder, _bands(tree.bands), _bands(release.wise_bands)


def layers():
    """Yield heading and rows: the layers of the viewer."""
    yield "layer", "survey", "bands", "arcsec", "FITS", "invvar", "maskbits", "unit", "note"
    for layer in LAYERS.values():
        yield (
            f"``{layer.name}``",
            layer.survey,
            _bands(layer.bands),
            f"{layer.pixel_scale_arcsec:g}",
            *(_yes(value) for value in (layer.fits, layer.invvar, layer.maskbits)),
            layer.unit,
            layer.note,
        )


def columns():
    """Yield heading and rows: the columns of the Tractor catalogue, of DR9 to DR11 together."""
    tables = {name: LegacySurvey.list_columns(release=name) for name in ("dr9", "dr10", "dr11")}
    found = {}
    for release, table in tables.items():
        for row in table:
            found.setdefault(str(row["name"]), (row, []))[1].append(release)
    yield "column", "type", "unit", "family", "comes unasked", "releases"
    for name, (row, had) in found.items():
        kind = str(row["dtype"]) if "dtype" in row.colnames else ""
        yield (
            f"``{name}``",
            kind,
            str(row["unit"] or ""),
            str(row["family"]),
            _yes(row["core"]),
            ", ".join(had),
        )


def types():
    """Yield heading and rows: the morphological types."""
    yield "type", "is"
    yield from ((f"``{name}``", str(meaning)) for name, meaning in TYPES.items())


def mask_bits():
    """Yield heading and rows: the bits of MASKBITS by release."""
    had = {name: maskbits(name) for name in RELEASES if "maskbits" in RELEASES[name].products}
    newest_last = {name: bit for bits in had.values() for name, bit in bits.items()}
    names = sorted(newest_last, key=newest_last.get)
    yield "bit", *had
    for name in names:
        yield f"``{name}``", *(str(bits.get(name, "")) for bits in had.values())


def mirrors():
    """Yield heading and rows: the registered mirrors."""
    yield "name", "where", "is"
    for mirror in REGISTERED.values():
        yield f"``{mirror.name}``", f"``{mirror.template}``", mirror.description


def settings():
    """Yield heading and rows: the items of the configuration."""
    yield "item", "default", "meaning"
    for name, item in conf.items():
        default = item.defaultvalue
        yield f"``{name}``", f"``{default}``" if default != "" else "", item.description


def errors():
    """Yield heading and rows: errors and warnings with what they derive from."""
    yield "name", "derives from", "means"
    for name in exceptions.__all__:
        kind = getattr(exceptions, name)
        bases = ", ".join(base.__name__ for base in kind.__bases__)
        yield f"`~astroquery_lis.exceptions.{name}`", bases, inspect.getdoc(kind).splitlines()[0]


TABLES = {
    "bands": bands,
    "columns": columns,
    "errors": errors,
    "file-products": file_products,
    "layers": layers,
    "mask-bits": mask_bits,
    "mirrors": mirrors,
    "products": products,
    "releases": releases,
    "settings": settings,
    "types": types,
}


class SurveyTable(Directive):
    """A table of the survey or of the package."""

    required_arguments = 1
    option_spec = {"class": directives.class_option}  # noqa: RUF012

    def run(self):
        """Return the table, in a box that scrolls sideways where it is too wide."""
        name = self.arguments[0]
        if name not in TABLES:
            raise self.error(f"survey-table: {name!r} is none of {', '.join(TABLES)}")
        return list_table(self, list(TABLES[name]()), classes=self.options.get("class", ()))


def list_table(directive, rows, string_list=StringList, *, classes=()):
    """Return a table, whose cells may hold markup, in a box that scrolls sideways.

    ``rows`` has the heading first; ``directive`` is the one that it is for.
    """
    heading, *rows = rows
    table = nodes.table(classes=["survey-table", *classes])
    group = nodes.tgroup(cols=len(heading))
    table += group
    group += [nodes.colspec(colwidth=1) for _ in heading]
    head, body = nodes.thead(), nodes.tbody()
    group += [head, body]

    def row_of(cells):
        row = nodes.row()
        for cell in cells:
            entry = nodes.entry()
            lines = string_list([str(cell).replace("|", "\\|")], source="table")
            directive.state.nested_parse(lines, 0, entry)
            row += entry
        return row

    head += row_of(heading)
    body += [row_of(row) for row in rows]
    box = nodes.container(classes=["scrolls"])
    box += table
    return [box]


def setup(app):
    """Register the directive."""
    app.add_directive("survey-table", SurveyTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
