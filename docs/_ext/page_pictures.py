"""Pictures that the examples of a page make: ``.. picture-of:: EXPRESSION``.

The examples above the directive, which are the ones that the tests run, are run once more when the
documentation is built, and the expression is evaluated with the names that they left.  Its value is
an array of red, green and blue, or something with a figure of matplotlib.
"""

import contextlib
import doctest
import hashlib
import importlib.util
import io
import os
import re
import tempfile
import warnings
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx.util.logging import getLogger

from astroquery_lis import sandbox

__all__ = ["run_examples", "setup"]

LOGGER = getLogger(__name__)

LEFT_OUT = re.compile(
    r"^( *)\.\. doctest-(remote-data|skip|requires|requires-all)::(.*)\n(?:\n|\1 +.*\n)*", re.M
)
LEAST_WIDTH = 480

# What the plugin of the tests adds to the options of an example.
for _flag in ("IGNORE_OUTPUT", "FLOAT_CMP"):
    doctest.register_optionflag(_flag)


def _missing(packages):
    names = (re.split(r"[<>=!~]", name)[0] for name in re.split(r"[,\s]+", packages))
    return [name for name in names if name and importlib.util.find_spec(name) is None]


def examples_of(text):
    """Return the examples of a page that can be run here, and the packages that others lack."""
    lacking = []

    def kept(match):
        if match[2] not in ("requires", "requires-all"):
            return "\n"
        missing = _missing(match[3])
        lacking.extend(missing)
        return "\n" if missing else match[0]

    whole = re.search(r"^ *\.\. doctest-requires-all::(.*)$", text, flags=re.M)
    if whole and _missing(whole[1]):
        text = text[: whole.start()]
        lacking += _missing(whole[1])
    return doctest.DocTestParser().get_examples(LEFT_OUT.sub(kept, text)), lacking


def run_examples(examples, names, folder):
    """Run examples in a folder with the names that earlier ones left."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for example in examples:
                code = compile(example.source, "<example>", "single", dont_inherit=True)
                try:
                    exec(code, names)
                except Exception as error:
                    if example.exc_msg is None:
                        msg = f"{example.source}: {type(error).__name__}: {error}"
                        raise RuntimeError(msg) from error
    finally:
        os.chdir(before)


def _save(value, path):
    """Write a picture: an array, or a figure of matplotlib and what belongs to one."""
    figure = getattr(value, "figure", value)
    if hasattr(figure, "savefig"):
        figure.savefig(path, dpi=110, bbox_inches="tight")
        return
    from PIL import Image

    picture = Image.fromarray(value)
    times = -(-LEAST_WIDTH // picture.width)
    picture.resize((picture.width * times, picture.height * times), Image.NEAREST).save(path)


class PictureOf(Directive):
    """A picture that is made from what the examples above it left."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"alt": directives.unchanged_required, "width": directives.unchanged}  # noqa: RUF012

    def run(self):
        """Return the picture."""
        env = self.state.document.settings.env
        source = Path(env.doc2path(env.docname))
        lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
        page = env.temp_data.setdefault(
            "page_pictures", {"names": {"__name__": "__main__"}, "done": 0, "folder": None}
        )
        if page["folder"] is None:
            page["folder"] = tempfile.TemporaryDirectory(prefix="pictures-")
        examples, lacking = examples_of("".join(lines[: self.lineno - 1]))
        try:
            run_examples(examples[page["done"] :], page["names"], page["folder"].name)
            value = eval(self.arguments[0], page["names"])
        except NameError as error:
            if not lacking:
                raise self.error(f"picture-of: {error}") from error
            LOGGER.info("no picture without %s: %s", ", ".join(lacking), self.arguments[0])
            return []
        except Exception as error:
            raise self.error(f"picture-of: {error}") from error
        page["done"] = len(examples)
        digest = hashlib.sha256(f"{env.docname} {self.arguments[0]} {self.lineno}".encode())
        folder = Path(env.doctreedir, "pictures")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{source.stem}-{digest.hexdigest()[:10]}.png"
        _save(value, path)
        image = nodes.image(
            uri=os.path.relpath(path, source.parent), alt=self.options.get("alt", "")
        )
        if "width" in self.options:
            image["width"] = self.options["width"]
        return [image]


def _close(app, doctree):
    """End what the examples of a page began and did not end before its last picture."""
    page = app.env.temp_data.pop("page_pictures", None)
    if page is None:
        return
    for value in page["names"].values():
        if isinstance(value, sandbox.Sandbox):
            value.close()
    page["folder"].cleanup()


def setup(app):
    """Register the directive, and what tidies up after a page."""
    app.add_directive("picture-of", PictureOf)
    app.connect("doctree-read", _close)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
