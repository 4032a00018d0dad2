"""Tutorials as notebooks: ``.. notebook::`` links to one that is made of the page it stands on."""

import doctest
import json
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

__all__ = ["notebook_of", "setup"]

UNDERLINES = {"=": "#", "-": "##", "^": "###"}
DIRECTIVE = re.compile(r"^\.\. ([\w-]+):: ?(.*)\n((?:[ ]+.*\n|\n(?=[ ]))*)", re.M)
PAGE = re.compile(r":doc:`(?:([^`<]+?)\s*<)?/?([^`>]+)>?`")
ROLE = re.compile(r":\w+:`([^`<]*?)\s*(?:<[^>`]*>)?`")
LINK = re.compile(r"`([^`<]+?)\s*<([^>`]+)>`__?")
OBJECT = re.compile(r"(?<!`)`~?(?:[\w.]+\.)?([\w.]+)`(?!`)")


def _markdown(text):
    """Return the prose of a page as Markdown: titles, links, code and names."""

    def title(match):
        return f"{UNDERLINES[match[2][0]]} {match[1]}\n"

    text = re.sub(r"^(\S.*)\n([=^-])\2{2,}\n", title, text, flags=re.M)
    text = re.sub(r"^\.\. _[^\n]*:\n", "", text, flags=re.M)
    text = LINK.sub(r"[\1](\2)", text)
    text = PAGE.sub(lambda page: f"*{page[1] or page[2]}*", text)
    text = ROLE.sub(r"\1", text)
    text = re.sub(r"(?<!`)``([^`]+)``(?!`)", "\0\\1\0", text)
    text = OBJECT.sub("\0\\1\0", text)
    return text.replace("\0", "`").strip()


def _code(source, shown=""):
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    if shown:
        output = {"output_type": "stream", "name": "stdout"}
        cell["outputs"] = [{**output, "text": shown.splitlines(keepends=True)}]
    return {**cell, "source": source.rstrip("\n").splitlines(keepends=True)}


def _directive(match):
    """Keep what a notebook can show of a directive."""
    name, argument, body = match[1], match[2], match[3]
    if name == "picture-of":
        return f">>> {argument}\n\n"
    if name in ("doctest", "doctest-requires", "doctest-remote-data"):
        return re.sub(r"^ {1,3}", "", body, flags=re.M)
    if name == "code-block":
        inner = re.sub(r"^ {3}", "", body, flags=re.M).strip("\n")
        return f"\n```{argument}\n{inner}\n```\n"
    if name in ("note", "warning"):
        return re.sub(r"^ {1,3}", "", body, flags=re.M)
    return ""


def notebook_of(text):
    """Return the notebook, as `dict`, of the text of a page."""
    text = DIRECTIVE.sub(_directive, text)
    cells, prose = [], []

    def flush():
        markdown = _markdown("".join(prose))
        prose.clear()
        if markdown:
            lines = markdown.splitlines(keepends=True)
            cells.append({"cell_type": "markdown", "metadata": {}, "source": lines})

    for part in doctest.DocTestParser().parse(text):
        if isinstance(part, str):
            prose.append(part)
            continue
        if "".join(prose).strip() or not cells or cells[-1]["outputs"]:
            flush()
            cells.append(_code(part.source, part.want))
        else:
            prose.clear()
            before = "".join(cells[-1]["source"])
            cells[-1] = _code(before + "\n" + part.source, part.want)
    flush()
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


class Notebook(Directive):
    """A link to the page as a notebook."""

    def run(self):
        """Return the link."""
        env = self.state.document.settings.env
        name = Path(env.docname).name + ".ipynb"
        if not hasattr(env, "notebooks"):
            env.notebooks = set()
        env.notebooks.add(env.docname)
        html = f'<p class="notebook"><a download href="{name}">This page as a notebook</a></p>'
        return [nodes.raw("", html, format="html")]


def _write(app, error):
    if error is not None or app.builder.format != "html":
        return
    for docname in getattr(app.env, "notebooks", ()):
        text = Path(app.env.doc2path(docname)).read_text(encoding="utf-8")
        path = Path(app.outdir, f"{docname}.ipynb")
        path.write_text(json.dumps(notebook_of(text), indent=1), encoding="utf-8")


def _merge(app, env, docnames, other):
    env.notebooks = getattr(env, "notebooks", set()) | getattr(other, "notebooks", set())


def setup(app):
    """Register the directive, and what writes the notebooks."""
    app.add_directive("notebook", Notebook)
    app.connect("build-finished", _write)
    app.connect("env-merge-info", _merge)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
