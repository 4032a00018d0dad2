"""What belongs together in stages 2 and 3.

Plain images are calibrated one by one and make a mosaic of what has one program, target,
instrument, filter, pupil and subarray; for all else the rules of the `jwst` package are asked.  A
product is named as MAST does.
"""

from __future__ import annotations

import itertools
import string
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from ...exceptions import InvalidRequestError, meant, refuse
from ..corrections import Correction
from ..parameters import for_task
from ..pipelines import STAGE3_PIPELINES
from .associations import Association, FileProduct, associate, header_of, is_plain, is_stage3
from .exposures import Exposure, grouped, split_name

GroupBy = str | Sequence[str] | Callable[[Exposure], str]


@dataclass(frozen=True)
class Request:
    """What a plan is asked for, checked.

    ``layers`` are sets of parameters, of which a later one has its way; ``grid`` is that of all
    mosaics, in the words of resample, empty where each has its own.
    """

    stages: tuple[int, ...] = (1, 2, 3)
    output_dir: str | None = None
    layers: tuple[dict, ...] = ()
    corrections: tuple[Correction, ...] = ()
    group_by: GroupBy | None = None
    product_name: str | None = None
    abs_refcat: str | None = None
    grid: dict[str, Any] = field(default_factory=dict)
    check_associations: bool = True

    def steps_for(
        self, pipeline: str, exposures: Sequence[Exposure]
    ) -> dict[str, dict[str, object]]:
        """Return the parameters of a pipeline for some exposures."""
        return for_task(self.layers, pipeline, exposures) if self.layers else {}

    def corrections_at(self, point: str, exposure: Exposure) -> list[Correction]:
        """Return the corrections of an exposure at a point of the chain."""
        return [c for c in self.corrections if c.point == point and c.applies(exposure)]


STAGE3_ROLES = ("science", "background", "psf")
"""Roles of the members that pipelines of stage 3 read."""

_KEYS = ("program", "target", "instrument", "filter", "pupil", "exp_type", "subarray")
"""What exposures of one mosaic share."""

_TEMPLATE_FIELDS = (
    "program", "asn_id", "target_id", "target", "instrument", "optelem", "filter", "pupil",
    "grating", "detector", "channel", "module", "exp_type", "subarray", "observation", "visit",
)  # fmt: skip
_RULE = "DMS_Level3_Base"
_UNKNOWN = Exposure("", "", "")
_PLAIN_SUBARRAYS = ("", "FULL", "GENERIC", "N/A", "NONE")


@dataclass(frozen=True)
class Together:
    """What belongs together among exposures.

    ``calibrations`` are the associations of stage 2 that rules made, and ``files`` those of files,
    header and other members, by the root of the science member; what is neither there nor in
    ``unwanted`` is calibrated by itself.  ``groups`` are the associations of stage 3.
    """

    calibrations: dict[str, Association] = field(default_factory=dict)
    groups: list[Association] = field(default_factory=list)
    unwanted: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)
    files: dict[str, tuple[dict, list[tuple[str, str]]]] = field(default_factory=dict)


def put_together(
    exposures: Sequence[Exposure], request: Request, files: Sequence[dict] = ()
) -> Together:
    """Return what belongs together; ``files`` are associations of any stage."""
    if not {2, 3} & set(request.stages):
        return Together()
    groups = _file_groups(files, exposures)
    names = _Names(exposures, request.product_name)
    plain, ruled = _parted(exposures)
    level2, level3 = associate(ruled, names.targets)
    unwanted, notes = _unwanted(exposures, ruled, level2, files)
    left_out = {e.root for group in groups for e in group.science} | unwanted
    if request.group_by is not None:
        # Backgrounds and the like too: whoever regroups says what belongs together.
        plain = [e for e in exposures if e.classes[2] == "Image3Pipeline"]
        level3 = [group for group in level3 if group.pipeline != "Image3Pipeline"]
    groups += _image_groups(plain, left_out, request.group_by, names)
    groups += _rule_groups(level3, left_out, names)
    if 3 in request.stages:
        notes += _without_stage3(ruled, groups, unwanted)
    calibrations = {a.science[0].root: a for a in level2}
    return Together(calibrations, names.distinct(groups), unwanted, notes, _of_level2(files))


def members_of(product: FileProduct) -> list[tuple[str, str]]:
    """Return the members of a product in an association file, and their roles."""
    return [(m["expname"], str(m.get("exptype", "science")).lower()) for m in product["members"]]


def _products(files: Iterable[dict]) -> list[tuple[dict[str, object], list[tuple[str, str]]]]:
    """Return each product of some association files: the file, and the members."""
    return [(file, members_of(product)) for file in files for product in file["products"]]


def _of_level2(files: Sequence[dict]) -> dict[str, tuple[dict[str, object], list[tuple[str, str]]]]:
    """Return header and other members of each science member; the first file has its way."""
    by_root: dict[str, tuple[dict[str, object], list[tuple[str, str]]]] = {}
    for file, members in _products(file for file in files if not is_stage3(file)):
        helpers = [(name, role) for name, role in members if role != "science"]
        for name, role in members:
            if role == "science":
                by_root.setdefault(split_name(name)[0], (file, helpers))
    return by_root


def _file_groups(files: Sequence[dict], exposures: Sequence[Exposure]) -> list[Association]:
    by_root = {e.root: e for e in exposures}
    return [_of_file(file, by_root) for file in files if is_stage3(file)]


def _of_file(file: dict[str, Any], by_root: dict[str, Exposure]) -> Association:
    """Return the product that an association file of stage 3 describes."""
    path, kind, product = file["path"], str(file.get("asn_type", "")).lower(), _only_product(file)
    roles = [(Path(name).name, role) for name, role in members_of(product) if role in STAGE3_ROLES]
    missing = [name for name, _ in roles if split_name(name)[0] not in by_root]
    if missing:
        msg = f"{path}: its members {', '.join(missing)} are not among the files."
        raise InvalidRequestError(msg, parameter="files", value=path)
    values = {k: v for k, v in file.items() if k not in ("products", "path") and v is not None}
    return Association(
        "file",
        header=header_of(_UNKNOWN, kind, _RULE) | values,
        product=product["name"],
        members=tuple((by_root[split_name(name)[0]], role) for name, role in roles),
    )


def _only_product(file: dict[str, Any]) -> FileProduct:
    """Return the one named product of an association of stage 3; refuse others."""
    kind = str(file.get("asn_type", "")).lower()
    products: list[FileProduct] = file["products"]
    if kind in STAGE3_PIPELINES and len(products) == 1 and products[0].get("name"):
        return products[0]
    msg = (
        f"{file['path']}: asn_type={kind!r} with {len(products)} products; a plan takes level 3 "
        f"associations ({', '.join(STAGE3_PIPELINES)}) of one named product."
    )
    raise InvalidRequestError(msg, parameter="files", value=file["path"])


def _parted(exposures: Sequence[Exposure]) -> tuple[list[Exposure], list[Exposure]]:
    """Return plain images, and what the rules of the package have to be asked about."""
    calibrated = [e for e in sorted(exposures, key=_when) if e.classes[1]]
    plain: list[Exposure] = []
    ruled: list[Exposure] = []
    for members in grouped(calibrated, attrgetter("program", "instrument")).values():
        science = [e for e in members if not e.is_acquisition]
        if is_plain(science):
            plain += science
        else:
            ruled += members
    return plain, ruled


def _unwanted(
    exposures: Sequence[Exposure],
    ruled: list[Exposure],
    level2: list[Association],
    files: Sequence[dict],
) -> tuple[frozenset[str], list[str]]:
    """Return what would be reduced in vain, and the notes that say so."""
    needed = {e.root for a in level2 for e in a.exposures}
    needed |= {split_name(name)[0] for _, members in _products(files) for name, _ in members}
    unused = [e for e in _in_doubt(exposures, ruled) if e.root not in needed]
    notes = [
        f"{listed(e.root for e in alike)}: {why}."
        for why, alike in grouped(unused, _why_unwanted).items()
    ]
    return frozenset(e.root for e in unused), notes


def _in_doubt(exposures: Sequence[Exposure], ruled: list[Exposure]) -> list[Exposure]:
    """Return what is reduced only if something else needs it."""
    # What is calibrated already needs no rule of stage 2.
    doubtful = [e for e in ruled if e.level != "cal" and not e.is_acquisition]
    acquisitions = [e for e in exposures if e.is_acquisition]
    return doubtful + acquisitions if len(acquisitions) < len(exposures) else doubtful


def _why_unwanted(exposure: Exposure) -> str:
    if exposure.is_acquisition:
        return f"left out, since {exposure.exp_type} only found the target; plan it by itself"
    hint = ""
    if exposure.is_slitless:
        hint = "; slitless spectra need one or more direct images of their observation"
    return (
        f"left out, since no rule of jwst.associations calibrates such {exposure.exp_type} in "
        f"stage 2{hint}; stages=1 makes count rates of them"
    )


def listed(names: Iterable[str], most: int = 5) -> str:
    """Return names in words, the first few of many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _rule_groups(
    level3: list[Association], left_out: Collection[str], names: _Names
) -> list[Association]:
    """Return the associations of stage 3 by rules, with the members that a plan makes."""
    groups = []
    for association in sorted(level3, key=lambda a: (min(map(_when, a.science)), a.product)):
        members = _stage3_members(association, left_out)
        group = replace(association, members=members)
        if not group.science:
            continue
        header = {"asn_pool": "none", **association.header}
        product = association.product
        if names.template is not None:
            product = names.product(group.science, str(header["asn_id"]))
        kind = "background" if all(e.is_background for e in group.science) else ""
        key = (kind, *_apart_by(group.science))
        groups.append(replace(group, header=header, product=product, key=key))
    return groups


def _stage3_members(
    association: Association, left_out: Collection[str]
) -> tuple[tuple[Exposure, str], ...]:
    """Return the members that stage 3 reads, the science first."""
    takes_integrations = association.suffix.endswith("ints")
    members = [
        (e, role)
        for e, role in association.members
        if role == "background"
        or (role in STAGE3_ROLES and e.is_integrations == takes_integrations)
    ]
    members = [(e, role) for e, role in members if role != "science" or e.root not in left_out]
    return tuple(sorted(members, key=lambda m: (m[1] != "science", _when(m[0]))))


def _apart_by(science: list[Exposure]) -> list[str]:
    """Return what may tell products apart that the rules give one name."""
    names = ("exp_type", "detector", "filter", "pupil", "grating", "subarray", "visit", "target")
    return ["-".join(sorted({getattr(e, name).lower() for e in science})) for name in names]


def _without_stage3(
    exposures: list[Exposure], groups: list[Association], unwanted: frozenset[str]
) -> list[str]:
    """Return notes on exposures whose type has a stage 3, and that no product has."""
    grouped_roots = {e.root for group in groups for e in group.exposures} | unwanted
    lost = [
        e for e in exposures if e.classes[2] and e.root not in grouped_roots and not e.is_for_others
    ]
    return [
        f"{what}: no stage 3, since {_WITHOUT.get(pipeline, _NO_RULE)} "
        f"({listed(e.root for e in members)})."
        for (what, pipeline), members in grouped(lost, _what_and_how).items()
    ]


def _what_and_how(exposure: Exposure) -> tuple[str, str]:
    what = f"{exposure.target or 'unknown target'} {exposure.filter}".strip()
    return what, exposure.classes[2]


_STAR = "needs exposures of a reference star (IS_PSF), and there are none with this set-up"
_WITHOUT = {
    "Coron3Pipeline": f"coronagraphy {_STAR}",
    "Ami3Pipeline": f"aperture masking {_STAR}",
    "WfsCombineStep": "wavefront sensing takes pairs of exposures",
}
_NO_RULE = "no rule of jwst.associations puts such exposures together"


# ---- plain images -------------------------------------------------------------------------------


def _image_groups(
    exposures: Iterable[Exposure],
    left_out: Collection[str],
    group_by: GroupBy | None,
    names: _Names,
) -> list[Association]:
    """Return the mosaics of plain images."""
    images = sorted((e for e in exposures if e.root not in left_out), key=_when)
    groups: list[Association] = []
    n_mixed = itertools.count(1001)
    for key, science in grouped(images, _key_by(group_by)).items():
        header = header_of(science[0], "image3", _RULE)
        if len({e.observation for e in science}) > 1:
            header["asn_id"] = f"c{next(n_mixed)}"
        group = Association(
            "images",
            header=header,
            product=names.product(science, header["asn_id"]),
            members=tuple((e, "science") for e in science),
            key=key,
        )
        groups.append(group)
    return groups


def _when(exposure: Exposure) -> tuple[str, str, str]:
    return (exposure.date, exposure.time, exposure.root)


def _key_by(group_by: GroupBy | None) -> Callable[[Exposure], tuple[str, ...]]:
    """Return the function that gives what exposures of one mosaic have in common."""
    if callable(group_by):
        return lambda exposure: (str(group_by(exposure)),)
    names = _KEYS if group_by is None else group_by
    names = (names,) if isinstance(names, str) else tuple(names)
    allowed = [f.name for f in fields(Exposure) if f.type in ("str", "bool", str, bool)]
    for name in names:
        if name not in allowed:
            msg = f"group_by={name!r} is none of {', '.join(allowed)}.{meant(name, allowed)}"
            raise InvalidRequestError(msg, parameter="group_by", value=group_by)
    return lambda exposure: tuple(str(getattr(exposure, name)) for name in names)


# ---- names --------------------------------------------------------------------------------------

_NO_ELEMENT = ("", "N/A", "NONE", "MIRROR")


class _Names:
    """Names of products: by a template, or as MAST does."""

    def __init__(self, exposures: Sequence[Exposure], template: str | None) -> None:
        self.template = template
        self.targets = list(dict.fromkeys(e.target for e in sorted(exposures, key=_when)))

    def product(self, science: Sequence[Exposure], asn_id: str) -> str:
        """Return the name of a product."""
        values = {n: _common(n, science) for n in _TEMPLATE_FIELDS if hasattr(science[0], n)}
        values |= {
            "program": science[0].program or "00000",
            "asn_id": asn_id,
            "target_id": f"t{self.targets.index(science[0].target) + 1:03d}",
            "optelem": _elements(science),
        }
        if self.template is None:
            name = "jw{program}-{asn_id}_{target_id}_{instrument}_{optelem}".format(**values)
            return "-".join([name, *sorted({e.subarray.lower() for e in science if _small(e)})])
        with suppress(KeyError, IndexError, ValueError, AttributeError):
            return _slug(self.template.format(**values))
        must = f"may hold the fields {', '.join(_TEMPLATE_FIELDS)}."
        refuse("product_name", self.template, must)

    def distinct(self, groups: list[Association]) -> list[Association]:
        """Return groups with names of their own; what tells them apart goes into the name."""
        twice = _shared_names(groups)
        if twice and self.template is None:
            groups = [_renamed(g, groups) if g.product in twice else g for g in groups]
            twice = _shared_names(groups)
        if twice:
            must = (
                "and group_by give several products the name "
                f"{twice[0]!r}; use more of the fields {', '.join(_TEMPLATE_FIELDS)}."
            )
            refuse("product_name", self.template, must)
        return groups


def _elements(science: Sequence[Exposure]) -> str:
    elements = {value for e in science for value in (e.filter, e.pupil, e.grating)}
    words = set(map(str.lower, elements.difference(_NO_ELEMENT)))
    return "-".join(sorted(words)) or "clear"


def _common(name: str, science: Sequence[Exposure]) -> str:
    return "-".join(sorted({str(getattr(e, name)).lower() for e in science} - {""}))


def _small(exposure: Exposure) -> bool:
    return exposure.subarray.upper() not in _PLAIN_SUBARRAYS


_ALLOWED = set(string.ascii_letters + string.digits + "-_.+")


def _slug(name: str) -> str:
    return "".join(c if c in _ALLOWED else "-" for c in name).strip("-_.") or "product"


def _shared_names(groups: list[Association]) -> list[str]:
    counts = Counter(group.product for group in groups)
    return [name for name, count in counts.items() if count > 1]


def _renamed(group: Association, groups: list[Association]) -> Association:
    """Return a group with those words of its key in its name that its namesakes do not have."""
    if group.origin == "file":
        return group
    namesakes = [g for g in groups if g.product == group.product]
    # The same places of their keys, and what runs on them.
    columns = list(itertools.zip_longest(*(g.key for g in namesakes)))
    words = [
        _slug(own).lower()
        for own, column in zip(group.key, columns, strict=False)
        if own and len(set(column)) > 1
    ]
    if len({g.pipeline for g in namesakes}) > 1:
        words.append(group.pipeline.removesuffix("Pipeline").lower())
    return replace(group, product="-".join([group.product, *words]))
