"""The rooms of the package, from the contract of ``lint-imports``: ``.. import-layers::``."""

import ast
import configparser
import html
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

__all__ = ["read_layers", "room_imports", "setup"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "astroquery_lis"
CONTRACT = "importlinter:contract:layers"
WIDTH, HEIGHT, GAP, MARGIN = 760, 64, 14, 10


def read_layers():
    """Return the rooms of each level, the highest level first."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    levels = []
    for line in parser[CONTRACT]["layers"].strip().splitlines():
        names = [name.strip(" ()") for name in line.split("|")]
        levels.append([name for name in names if _file(name).is_file()])
    return [level for level in levels if level and level != ["__main__"]]


def _file(room):
    module = PACKAGE / f"{room}.py"
    return module if module.is_file() else PACKAGE / room / "__init__.py"


def _sources(room):
    module = PACKAGE / f"{room}.py"
    return [module] if module.is_file() else sorted((PACKAGE / room).rglob("*.py"))


def _purpose(room):
    """Return the first sentence of what the room says of itself."""
    text = ast.get_docstring(ast.parse(_file(room).read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".")


def room_imports(room, rooms):
    """Return the other rooms that the modules of a room import."""
    found = set()
    for path in _sources(room):
        depth = len(path.relative_to(PACKAGE).parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == depth:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                found |= {name.split(".")[0] for name in names}
    return sorted((found & set(rooms)) - {room})


def _svg(levels):
    height = MARGIN * 2 + len(levels) * HEIGHT + (len(levels) - 1) * GAP
    style = 'font-family="sans-serif" fill="currentColor"'
    parts = [
        f'<svg class="rooms" viewBox="0 0 {WIDTH} {height}" role="img" {style} '
        'xmlns="http://www.w3.org/2000/svg"><title>The rooms, each above those it may '
        "import</title>"
    ]
    for row, level in enumerate(levels):
        y = MARGIN + row * (HEIGHT + GAP)
        wide = (WIDTH - 2 * MARGIN - (len(level) - 1) * GAP) / len(level)
        for column, room in enumerate(level):
            x = MARGIN + column * (wide + GAP)
            middle = x + wide / 2
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{HEIGHT}" rx="6" '
                'fill="none" stroke="currentColor" stroke-opacity="0.6"/>'
                f'<text x="{middle:.1f}" y="{y + 26}" text-anchor="middle" font-size="17" '
                f'font-weight="600">{room}</text>'
                f'<text x="{middle:.1f}" y="{y + 48}" text-anchor="middle" font-size="13" '
                f'fill-opacity="0.8">{len(_sources(room))} '
                f"{'module' if len(_sources(room)) == 1 else 'modules'}</text>"
            )
        if row:
            arrow = f"M{WIDTH / 2:.0f} {y - GAP + 1} v{GAP - 3} m-4 -5 l4 5 l4 -5"
            parts.append(f'<path d="{arrow}" fill="none" stroke="currentColor"/>')
    return "".join([*parts, "</svg>"])


class ImportLayers(Directive):
    """The picture of the rooms, and a table of what each is for and imports."""

    def run(self):
        """Return both."""
        env = self.state.document.settings.env
        for path in (ROOT / "setup.cfg", *(_file(r) for level in read_layers() for r in level)):
            env.note_dependency(str(path))
        levels = read_layers()
        rooms = [room for level in levels for room in level]
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 16 50 34", ""]
        rows = [("room", "what it does", "imports")]
        for room in rooms:
            used = ", ".join(f"``{name}``" for name in room_imports(room, rooms))
            rows.append((f"``{room}``", html.unescape(_purpose(room)), used))
        for room, purpose, used in rows:
            lines += [f"   * - {room}", f"     - {purpose}", f"     - {used}"]
        box = nodes.container()
        self.state.nested_parse(StringList(lines, source="import-layers"), 0, box)
        return [nodes.raw("", _svg(levels), format="html"), *box.children]


def setup(app):
    """Register the directive."""
    app.add_directive("import-layers", ImportLayers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
