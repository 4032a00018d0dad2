"""What belongs together in stages 2 and 3.

Plain images are calibrated one by one and make a mosaic of what has one program, target,
instrument, filter, pupil and subarray; for all else the rules of the `jwst` package are asked.  A
product is named as MAST does.
"""

from __future__ import annotations

import string
from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidRequestError, meant, refuse
from .associations import Association, associate, is_plain, is_stage3
from .exposures import Exposure, split_name
from .pipelines import (
    STAGE3_PIPELINES,
    is_acquisition,
    is_integrations,
    is_slitless,
    stage_classes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    GroupBy = str | Sequence[str] | Callable[[Exposure], str]

STAGE3_ROLES = ("science", "background", "psf")
"""Roles of the members that pipelines of stage 3 read."""

_KEYS = ("program", "target", "instrument", "filter", "pupil", "exp_type", "subarray")
"""What exposures of one mosaic share."""

_TEMPLATE_FIELDS = (
    "program", "asn_id", "target_id", "target", "instrument", "optelem", "filter", "pupil",
    "grating", "detector", "channel", "module", "exp_type", "subarray", "observation", "visit",
)  # fmt: skip
_PLAIN_SUBARRAYS = ("", "FULL", "GENERIC", "N/A", "NONE")


@dataclass(frozen=True)
class Together:
    """What belongs together among exposures.

    ``calibrations`` are the associations of stage 2 that rules made, by root; what is neither there
    nor in ``unwanted`` is calibrated by itself.  ``files`` are association files of stage 2, and
    ``groups`` the associations of stage 3.
    """

    calibrations: dict[str, Association] = field(default_factory=dict)
    groups: list[Association] = field(default_factory=list)
    unwanted: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)
    files: list[dict] = field(default_factory=list)


def put_together(
    exposures: Sequence[Exposure],
    *,
    group_by: GroupBy | None = None,
    product_name: str | None = None,
    files: Sequence[dict] = (),
    stages: Sequence[int] = (1, 2, 3),
) -> Together:
    """Return what belongs together in some stages; ``files`` are associations of any stage."""
    if not {2, 3} & set(stages):
        return Together()
    groups = [_of_file(file, exposures) for file in files if is_stage3(file)]
    products = [product for file in files for product in file["products"]]
    named = {split_name(name)[0] for product in products for name, _ in members_of(product)}
    targets = list(dict.fromkeys(e.target for e in sorted(exposures, key=_when)))
    plain, others = _parted(exposures)
    level2, level3 = associate(others, targets)
    calibrations = {a.science[0].root: a for a in level2}
    unwanted, notes = _unwanted(exposures, others, level2, named)
    taken = {e.root for group in groups for e in group.science} | unwanted
    images = plain
    if group_by is not None:
        # Backgrounds and the like too: whoever regroups says what belongs together.
        images = [e for e in exposures if stage_classes(e)[2] == "Image3Pipeline"]
    images = [e for e in images if e.root not in taken]
    groups += _image_groups(images, targets, group_by, product_name)
    for group in _rule_groups(level3, taken, targets, product_name):
        if group_by is None or group.pipeline != "Image3Pipeline":
            groups.append(group)
    if 3 in stages:
        notes += _without_stage3(others, groups, unwanted)
    groups = _distinct(groups, product_name)
    files = [file for file in files if not is_stage3(file)]
    return Together(calibrations, groups, unwanted, notes, files)


def members_of(product: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the members of a product in an association file, and their roles."""
    return [(m["expname"], str(m.get("exptype", "science")).lower()) for m in product["members"]]


def _of_file(file: dict[str, Any], exposures: Sequence[Exposure]) -> Association:
    """Return the product that an association file of stage 3 describes."""
    by_root = {e.root: e for e in exposures}
    path, products = file["path"], file["products"]
    kind = str(file.get("asn_type", "")).lower()
    if kind not in STAGE3_PIPELINES or len(products) != 1 or not products[0].get("name"):
        msg = (
            f"{path}: asn_type={kind!r} with {len(products)} products; a plan takes level 3 "
            f"associations ({', '.join(STAGE3_PIPELINES)}) of one named product."
        )
        raise InvalidRequestError(msg, parameter="files", value=path)
    roles = [(name, role) for name, role in members_of(products[0]) if role in STAGE3_ROLES]
    missing = [Path(name).name for name, _ in roles if split_name(name)[0] not in by_root]
    if missing:
        msg = f"{path}: its members {', '.join(missing)} are not among the files."
        raise InvalidRequestError(msg, parameter="files", value=path)
    values = {k: v for k, v in file.items() if k not in ("products", "path") and v is not None}
    return Association(
        "file",
        header=_header(kind, "a3001", "00000", "unknown") | values,
        product=products[0]["name"],
        members=tuple((by_root[split_name(name)[0]], role) for name, role in roles),
    )


def _header(asn_type: str, asn_id: str, program: str, target: str) -> dict[str, object]:
    return {
        "asn_type": asn_type,
        "asn_rule": "DMS_Level3_Base",
        "asn_id": asn_id,
        "program": program,
        "target": target,
        "asn_pool": "none",
    }


def _parted(exposures: Sequence[Exposure]) -> tuple[list[Exposure], list[Exposure]]:
    """Return plain images, and what the rules of the package have to be asked about."""
    sets = defaultdict(list)
    for exposure in sorted(exposures, key=_when):
        if stage_classes(exposure)[1]:
            sets[exposure.program, exposure.instrument].append(exposure)
    plain: list[Exposure] = []
    others: list[Exposure] = []
    for members in sets.values():
        science = [e for e in members if not is_acquisition(e)]
        if is_plain(science):
            plain += science
        else:
            others += members
    return plain, others


def _unwanted(
    exposures: Sequence[Exposure],
    others: list[Exposure],
    level2: list[Association],
    named: Collection[str],
) -> tuple[frozenset[str], list[str]]:
    """Return what would be reduced in vain, and the notes that say so."""
    wanted = {e.root for a in level2 for e, _ in a.members} | set(named)
    # What is calibrated already needs no rule of stage 2.
    unused = [e for e in others if e.level != "cal" and not is_acquisition(e)]
    if not all(map(is_acquisition, exposures)):
        unused += filter(is_acquisition, exposures)
    reasons = defaultdict(list)
    for exposure in unused:
        if exposure.root not in wanted:
            reasons[_why_unwanted(exposure)].append(exposure)
    notes = [f"{listed(e.root for e in lost)}: {why}." for why, lost in reasons.items()]
    return frozenset(e.root for lost in reasons.values() for e in lost), notes


def _why_unwanted(exposure: Exposure) -> str:
    if is_acquisition(exposure):
        return f"left out, since {exposure.exp_type} only found the target; plan it by itself"
    hint = ""
    if is_slitless(exposure):
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
    level3: list[Association], left_out: Collection[str], targets: list[str], template: str | None
) -> list[Association]:
    """Return the associations of stage 3 by rules, with the members that a plan makes."""
    groups = []
    for association in sorted(level3, key=lambda a: (_when(min(a.science, key=_when)), a.product)):
        ordered = sorted(association.members, key=lambda m: (m[1] != "science", _when(m[0])))
        members = tuple(
            (e, role)
            for e, role in ordered
            if role in STAGE3_ROLES and not (role == "science" and e.root in left_out)
            if role == "background" or is_integrations(e) == association.suffix.endswith("ints")
        )
        science = [e for e, role in members if role == "science"]
        if not science:
            continue
        product, header = association.product, {"asn_pool": "none", **association.header}
        if template is not None:
            product = _product_name(science, header["asn_id"], targets, template)
        kind = "background" if all(e.is_background for e in science) else ""
        key = (kind, *_apart_by(science))
        groups.append(
            replace(association, header=header, product=product, members=members, key=key)
        )
    return groups


def _apart_by(science: list[Exposure]) -> list[str]:
    """Return what may tell products apart that the rules give one name."""
    names = ("exp_type", "detector", "filter", "pupil", "grating", "subarray", "visit", "target")
    return ["-".join(sorted({getattr(e, name).lower() for e in science})) for name in names]


def _without_stage3(
    exposures: list[Exposure], groups: list[Association], unwanted: frozenset[str]
) -> list[str]:
    """Return notes on exposures whose type has a stage 3, and that no product has."""
    grouped = {e.root for group in groups for e in group.exposures} | unwanted
    lost = defaultdict(list)
    for e in exposures:
        pipeline = stage_classes(e)[2]
        if pipeline and e.root not in grouped and not (e.is_background or e.is_psf or e.is_imprint):
            lost[f"{e.target or 'unknown target'} {e.filter}".strip(), pipeline].append(e)
    return [
        f"{what}: no stage 3, since {_WITHOUT.get(pipeline, _NO_RULE)} "
        f"({listed(e.root for e in members)})."
        for (what, pipeline), members in lost.items()
    ]


_STAR = "needs exposures of a reference star (IS_PSF), and there are none with this set-up"
_WITHOUT = {
    "Coron3Pipeline": f"coronagraphy {_STAR}",
    "Ami3Pipeline": f"aperture masking {_STAR}",
    "WfsCombineStep": "wavefront sensing takes pairs of exposures",
}
_NO_RULE = "no rule of jwst.associations puts such exposures together"


# ---- plain images -------------------------------------------------------------------------------


def _image_groups(
    exposures: list[Exposure], targets: list[str], group_by: GroupBy | None, template: str | None
) -> list[Association]:
    """Return the mosaics of plain images."""
    sets = defaultdict(list)
    for exposure in sorted(exposures, key=_when):
        sets[_key(exposure, group_by)].append(exposure)
    groups: list[Association] = []
    for key, science in sets.items():
        observations = {e.observation for e in science}
        if len(observations) > 1:
            n_mixed = sum(group.header["asn_id"].startswith("c") for group in groups)
            asn_id = f"c{1001 + n_mixed}"
        else:
            asn_id = f"o{science[0].observation}" if science[0].observation else "a3001"
        program, target = science[0].program or "00000", science[0].target or "unknown"
        group = Association(
            "images",
            header=_header("image3", asn_id, program, target),
            product=_product_name(science, asn_id, targets, template),
            members=tuple((e, "science") for e in science),
            key=key,
        )
        groups.append(group)
    return groups


def _when(exposure: Exposure) -> tuple[str, str, str]:
    return (exposure.date, exposure.time, exposure.root)


def _key(exposure: Exposure, group_by: GroupBy | None) -> tuple[str, ...]:
    if callable(group_by):
        return (str(group_by(exposure)),)
    if group_by is None:
        return tuple(getattr(exposure, name) for name in _KEYS)
    names = (group_by,) if isinstance(group_by, str) else tuple(group_by)
    allowed = [f.name for f in fields(Exposure) if f.type in ("str", "bool", str, bool)]
    for name in names:
        if name not in allowed:
            msg = f"group_by={name!r} is none of {', '.join(allowed)}.{meant(name, allowed)}"
            raise InvalidRequestError(msg, parameter="group_by", value=group_by)
    return tuple(str(getattr(exposure, name)) for name in names)


def _optelem(exposures: Sequence[Exposure]) -> str:
    elements = {
        value.lower()
        for e in exposures
        for value in (e.filter, e.pupil, e.grating)
        if value and value not in ("N/A", "NONE", "MIRROR")
    }
    return "-".join(sorted(elements)) or "clear"


def _product_name(
    science: Sequence[Exposure], asn_id: str, targets: list[str], template: str | None
) -> str:
    def common(name: str) -> str:
        return "-".join(sorted({str(getattr(e, name)).lower() for e in science} - {""}))

    values = {name: common(name) for name in _TEMPLATE_FIELDS if hasattr(science[0], name)}
    values |= {
        "program": science[0].program or "00000",
        "asn_id": asn_id,
        "target_id": f"t{targets.index(science[0].target) + 1:03d}",
        "optelem": _optelem(science),
    }
    if template is None:
        name = "jw{program}-{asn_id}_{target_id}_{instrument}_{optelem}".format(**values)
        return "-".join([name, *sorted({e.subarray.lower() for e in science if _small(e)})])
    try:
        name = template.format(**values)
    except (KeyError, IndexError, ValueError, AttributeError):
        msg = f"product_name={template!r} may hold the fields {', '.join(_TEMPLATE_FIELDS)}."
        raise InvalidRequestError(msg, parameter="product_name", value=template) from None
    return _slug(name)


def _small(exposure: Exposure) -> bool:
    return exposure.subarray.upper() not in _PLAIN_SUBARRAYS


_ALLOWED = set(string.ascii_letters + string.digits + "-_.+")


def _slug(name: str) -> str:
    return "".join(c if c in _ALLOWED else "-" for c in name).strip("-_.") or "product"


def _distinct(groups: list[Association], template: str | None) -> list[Association]:
    """Return the groups with names of their own; what tells them apart goes into the name."""
    twice = _shared_names(groups)
    renamed = groups
    if twice and template is None:
        renamed = [
            replace(group, product="-".join([group.product, *_apart(group, groups)]))
            if group.product in twice and group.origin != "file"
            else group
            for group in groups
        ]
        twice = _shared_names(renamed)
    if twice:
        must = (
            "and group_by give several products the name "
            f"{twice[0]!r}; use more of the fields {', '.join(_TEMPLATE_FIELDS)}."
        )
        refuse("product_name", template, must)
    return renamed


def _shared_names(groups: list[Association]) -> list[str]:
    counts = Counter(group.product for group in groups)
    return [name for name, count in counts.items() if count > 1]


def _apart(group: Association, groups: list[Association]) -> list[str]:
    """Return the words of a group's key that namesakes of its name do not have."""
    namesakes = [g for g in groups if g.product == group.product and g is not group]
    words = [
        _slug(value).lower()
        for i, value in enumerate(group.key)
        if value and any(len(o.key) <= i or o.key[i] != value for o in namesakes)
    ]
    if any(o.pipeline != group.pipeline for o in namesakes):
        words.append(group.pipeline.removesuffix("Pipeline").lower())
    return words
