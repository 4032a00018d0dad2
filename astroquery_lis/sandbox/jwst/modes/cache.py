"""A CRDS cache for one instrument, of references that say themselves what fills them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asdf

from ..crds_files import CONTEXT, USEAFTER, lay_out, write_context, write_rules

if TYPE_CHECKING:
    from stdatamodels.jwst.datamodels import JwstDataModel

__all__ = ["CONTEXT", "Fill", "Reference", "References", "write_cache"]

_IN_ASDF = (
    "DistortionModel", "DistortionMRSModel", "FilteroffsetModel", "ABVegaOffsetModel",
    "RegionsModel", "SpecwcsModel", "WavelengthrangeModel",
)  # fmt: skip


Fill = Callable[[Any], None]
"""Fills a model of whatever class."""


@dataclass(frozen=True)
class Reference:
    """A reference file: the class of its model and what fills it, or parameters of a step.

    ``exp_types`` are the exposures that it is for; if a type of references has several, no
    exposure may find two of them.  ``write`` makes a file that no model does.  ``substeps`` are the
    steps of a pipeline by name: class and parameters.  Without anything it says that the type does
    not apply to them.
    """

    model: str = ""
    fill: Fill | None = None
    parameters: Mapping[str, Any] | None = None
    step: str = ""
    exp_types: tuple[str, ...] = ("*",)
    ending: str = ""
    write: Callable[[Path], None] | None = None
    substeps: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)

    def suffix(self) -> str:
        """Return how the file's name ends."""
        in_asdf = not self.model or self.model in _IN_ASDF
        return self.ending or (".asdf" if in_asdf else ".fits")


# By reference type; several of one type serve different exposures.
References = Mapping[str, Reference | Sequence[Reference]]


def write_cache(root: Path, instrument: Mapping[str, str], references: References) -> None:
    """Write a cache for one instrument, ``name`` and ``detector``."""
    name = instrument["name"]
    folder = lay_out(root, name)
    rules = {}
    for kind, entry in references.items():
        files: dict[tuple[str, ...], str] = {}
        several = [entry] if isinstance(entry, Reference) else entry
        for number, reference in enumerate(several, start=1):
            file = "N/A"
            if reference.model or reference.step or reference.write:
                file = f"jwst_{name.lower()}_{kind}_{number:04d}{reference.suffix()}"
                _write_reference(folder / file, kind, instrument, reference)
            files |= {(exp_type,): file for exp_type in reference.exp_types}
        rules[kind] = write_rules(root, name, kind, ("META.EXPOSURE.TYPE",), files)
    write_context(root, name, rules)


def _write_reference(
    path: Path, kind: str, instrument: Mapping[str, str], reference: Reference
) -> None:
    meta = {
        "author": "astroquery_lis.sandbox",
        "description": f"Simulated {kind}; not for real data",
        "pedigree": "DUMMY",
        "reftype": kind if reference.step else kind.upper(),
        "telescope": "JWST",
        "useafter": USEAFTER,
        "instrument": dict(instrument),
    }
    if reference.write is not None:
        reference.write(path)
        return
    if reference.step:
        tree: dict[str, Any] = {
            "class": reference.step,
            "name": reference.step.rpartition(".")[2],
            "meta": {**meta, "origin": "astroquery_lis.sandbox", "date": USEAFTER},
            "parameters": dict(reference.parameters or {}),
        }
        if reference.substeps:
            tree["steps"] = [
                {"class": step, "name": name, "parameters": dict(values)}
                for name, (step, values) in reference.substeps.items()
            ]
        asdf.AsdfFile(tree).write_to(str(path))
        return
    from stdatamodels.jwst import datamodels

    model: JwstDataModel = getattr(datamodels, reference.model)()
    for name, value in meta.items():
        setattr(model.meta, name, value)
    if reference.fill is not None:
        reference.fill(model)
    model.save(str(path))
    model.close()
