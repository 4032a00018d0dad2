"""What belongs together: backgrounds in stage 2, exposures of one product in stage 3.

Level 2 follows the rules of the `jwst` package as far as headers tell what they need: exposures of
a background target, and the other nods of a pattern, are backgrounds; imprints go with the
exposures of their observation.  Level 3 puts together what has one target, instrument, filter,
pupil and mode.  A product is named as MAST does.
"""

import difflib
import string
from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from ...exceptions import InvalidRequestError
from .exposures import Exposure
from .pipelines import stage_classes

__all__ = [
    "Group",
    "level2_members",
    "level3_groups",
    "unique_ids",
]

_KEYS = {
    "Image3Pipeline": ("program", "target", "instrument", "filter", "pupil", "exp_type"),
    "Coron3Pipeline": (
        "program", "target", "instrument", "filter", "pupil", "exp_type", "mask", "subarray",
    ),
    "Ami3Pipeline": ("program", "target", "instrument", "filter", "pupil", "exp_type", "subarray"),
    "Tso3Pipeline": (
        "program", "target", "instrument", "filter", "pupil", "grating", "exp_type", "detector",
        "subarray",
    ),
    "Spec3Pipeline": (
        "program", "target", "instrument", "filter", "pupil", "grating", "exp_type", "slit",
    ),
    "WfsCombineStep": (
        "program", "target", "instrument", "filter", "pupil", "exp_type", "observation", "visit",
        "activity_id", "detector",
    ),
}  # fmt: skip
# The channels and bands of the MRS, and the two grisms of a slitless field, make one product.
_FEWER = {
    "MIR_MRS": ("filter", "pupil", "grating", "slit"),
    "NIS_WFSS": ("filter",),
    "NRC_WFSS": ("pupil",),
}

_SOURCES = {
    "NRS_MSASPEC": "jw{program}-{asn_id}_{{source_id}}_{instrument}_{optelem}",
    "NRS_FIXEDSLIT": (
        "jw{program}-{asn_id}_{target_id}-{{source_id}}_{instrument}_{optelem}-{{slit_name}}"
    ),
    "MIR_MRS": "jw{program}-{asn_id}_{target_id}_{instrument}",
}
_DEFAULT = "jw{program}-{asn_id}_{target_id}_{instrument}_{optelem}"
_TEMPLATE_FIELDS = (
    "program", "asn_id", "target_id", "target", "instrument", "optelem", "filter", "pupil",
    "grating", "detector", "channel", "module", "exp_type", "subarray", "observation", "visit",
)  # fmt: skip
_PLAIN_SUBARRAYS = ("", "FULL", "GENERIC", "N/A", "NONE")
_OPTICAL = ("instrument", "detector", "filter", "pupil", "grating", "band", "slit", "subarray")


@dataclass(frozen=True, slots=True)
class Group:
    """The exposures of one product of stage 3.

    Attributes
    ----------
    pipeline : str
        Class of stage 3.
    product : str
        Name of the product, which may hold ``{source_id}`` and ``{slit_name}`` for the pipeline.
    asn_id : str
        Such as 'o001' for an observation, 'c1001' for several.
    program, target : str
        As the association has them.
    members : tuple of (Exposure, str)
        Exposures with their roles, 'science' first.
    given : dict
        The association file that the group comes from; empty if it was made here.
    key : tuple of str
        What its exposures have in common.
    """

    pipeline: str
    product: str
    asn_id: str
    program: str
    target: str
    members: tuple
    given: dict = field(default_factory=dict)
    key: tuple = ()

    @property
    def exposures(self):
        """All members, without their roles."""
        return [exposure for exposure, _ in self.members]

    @property
    def file_stem(self):
        """Name of the product without what the pipeline fills in."""
        stem = self.product.replace("{source_id}", "").replace("{slit_name}", "")
        while "__" in stem or "-_" in stem or "_-" in stem or stem.endswith("-"):
            stem = stem.replace("__", "_").replace("-_", "_").replace("_-", "_").rstrip("-")
        return stem


def level2_members(exposure, exposures):
    """Return what an exposure is calibrated with in stage 2.

    Parameters
    ----------
    exposure : Exposure
        The science exposure.
    exposures : sequence of Exposure
        All exposures of the plan.

    Returns
    -------
    list of (Exposure, str)
        Backgrounds and imprints with their roles; empty where there are none.
    """
    alike = [
        other
        for other in exposures
        if other.root != exposure.root
        and other.program == exposure.program
        and all(getattr(other, name) == getattr(exposure, name) for name in _OPTICAL)
    ]
    imprints = [
        (other, "imprint")
        for other in alike
        if other.is_imprint and other.observation == exposure.observation
    ]
    alike = [e for e in alike if not e.is_imprint and e.exp_type == exposure.exp_type]
    if exposure.is_background:
        return imprints
    found = [(other, "background") for other in alike if other.is_background]
    if not found and "NOD" in exposure.patttype.upper():
        found = [
            (other, "background")
            for other in alike
            if (other.target, other.observation) == (exposure.target, exposure.observation)
            and other.position_number != exposure.position_number
        ]
    return found + imprints


def level3_groups(exposures, *, group_by=None, product_name=None, given=()):
    """Return the products of stage 3.

    Parameters
    ----------
    exposures : sequence of Exposure
        All exposures of the plan, one per root.
    group_by : str, sequence of str, or callable, optional
        Attributes of `Exposure` that the exposures of a product have in common, or a function of
        an exposure that returns a string.  Pipelines are never mixed.
    product_name : str, optional
        Template such as ``"{target}_{filter}"``.
    given : sequence of dict
        Associations of level 3 that were read from files; the exposures in them are not put
        into other groups.

    Returns
    -------
    groups : list of Group
        By the time of their first exposure.
    notes : list of str
        What was left out, and why.

    Raises
    ------
    InvalidRequestError
        If an attribute or a field of the template is unknown, if a given association names files
        that are not there, or if two products have one name.
    """
    notes = []
    made = [_from_file(association, exposures) for association in given]
    taken = {e.root for group in made for e, role in group.members if role == "science"}
    sets = defaultdict(list)
    for exposure in sorted(exposures, key=_when):
        pipeline = stage_classes(exposure)[2]
        if pipeline and exposure.root not in taken and not exposure.is_imprint:
            if exposure.is_psf and pipeline in ("Coron3Pipeline", "Ami3Pipeline"):
                continue
            sets[(pipeline, *_key(exposure, pipeline, group_by))].append(exposure)
    targets = list(dict.fromkeys(e.target for e in sorted(exposures, key=_when)))
    n_mixed = 0
    for key, science in sets.items():
        members = [(e, "science") for e in science]
        members += [(e, "psf") for e in _references(science[0], exposures, key[0])]
        if (why := _impossible(key[0], science, members)) is not None:
            notes.append(why)
            continue
        observations = {e.observation for e in science}
        if len(observations) > 1:
            n_mixed += 1
            asn_id = f"c{1000 + n_mixed}"
        else:
            asn_id = f"o{science[0].observation}" if science[0].observation else "a3001"
        group = Group(
            pipeline=key[0],
            product="",
            asn_id=asn_id,
            program=science[0].program or "00000",
            target=science[0].target or "unknown",
            members=tuple(members),
            key=key[1:],
        )
        made.append(replace(group, product=_product_name(group, targets, product_name)))
    return _distinct(made, product_name), notes


def _when(exposure):
    return (exposure.date, exposure.time, exposure.root)


def _key(exposure, pipeline, group_by):
    if callable(group_by):
        return (str(group_by(exposure)),)
    if group_by is None:
        fewer = _FEWER.get(exposure.exp_type, ())
        key = [getattr(exposure, n) for n in _KEYS[pipeline] if n not in fewer]
        return (*key, "background" if exposure.is_background else "")
    names = (group_by,) if isinstance(group_by, str) else tuple(group_by)
    known = [f.name for f in fields(Exposure) if f.type in ("str", "bool", str, bool)]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            msg = f"group_by={name!r} is none of {', '.join(known)}.{meant}"
            raise InvalidRequestError(msg, parameter="group_by", value=group_by)
    return tuple(str(getattr(exposure, name)) for name in names)


def _references(first, exposures, pipeline):
    if pipeline not in ("Coron3Pipeline", "Ami3Pipeline"):
        return []
    names = ("program", "instrument", "filter", "pupil", "exp_type", "mask", "subarray")
    return [
        e
        for e in sorted(exposures, key=_when)
        if e.is_psf
        and stage_classes(e)[2] == pipeline
        and all(getattr(e, name) == getattr(first, name) for name in names)
    ]


def _impossible(pipeline, science, members):
    what = f"{science[0].target or 'unknown target'} {science[0].filter}".strip()
    if pipeline == "Coron3Pipeline" and not any(role == "psf" for _, role in members):
        return (
            f"{what}: no stage 3, since coronagraphy needs exposures of a reference star "
            "(IS_PSF), and there are none with this set-up."
        )
    if pipeline == "WfsCombineStep" and len(science) != 2:
        return f"{what}: no stage 3, since wavefront sensing takes 2 exposures, not {len(science)}."
    return None


def _optelem(exposures):
    if exposures[0].exp_type == "MIR_MRS":
        return ""
    elements = {
        value.lower()
        for e in exposures
        for value in (e.filter, e.pupil, e.grating)
        if value and value not in ("N/A", "NONE", "MIRROR")
    }
    return "-".join(sorted(elements)) or "clear"


def _product_name(group, targets, template):
    science = [e for e, role in group.members if role == "science"]

    def common(name):
        return "-".join(sorted({str(getattr(e, name)).lower() for e in science} - {""}))

    values = {name: common(name) for name in _TEMPLATE_FIELDS if hasattr(science[0], name)}
    values |= {
        "program": group.program,
        "asn_id": group.asn_id,
        "target_id": f"t{targets.index(science[0].target) + 1:03d}",
        "optelem": _optelem(science),
    }
    if template is None:
        name = _SOURCES.get(science[0].exp_type, _DEFAULT).format(**values)
        small = sorted({e.subarray.lower() for e in science if _small(e)})
        name = "-".join([name, *small])
        return f"{name}_wfscmb" if group.pipeline == "WfsCombineStep" else name
    try:
        name = template.format(**values)
    except (KeyError, IndexError, ValueError, AttributeError):
        msg = f"product_name={template!r} may hold the fields {', '.join(_TEMPLATE_FIELDS)}."
        raise InvalidRequestError(msg, parameter="product_name", value=template) from None
    return _slug(name)


def _small(exposure):
    return exposure.subarray.upper() not in _PLAIN_SUBARRAYS


_ALLOWED = set(string.ascii_letters + string.digits + "-_.+")


def _slug(name):
    return "".join(c if c in _ALLOWED else "-" for c in name).strip("-_.") or "product"


def _distinct(groups, template):
    """Return the groups with names of their own; what tells them apart goes into the name."""
    twice = _shared_names(groups)
    made = groups
    if twice and template is None:
        made = [
            replace(group, product="-".join([group.product, *_apart(group, groups)]))
            if group.product in twice and not group.given
            else group
            for group in groups
        ]
        twice = _shared_names(made)
    if twice:
        msg = (
            f"product_name={template!r} and group_by give several products the name "
            f"{twice[0]!r}; use more of the fields {', '.join(_TEMPLATE_FIELDS)}."
        )
        raise InvalidRequestError(msg, parameter="product_name", value=template)
    return made


def _shared_names(groups):
    counts = Counter(group.product for group in groups)
    return [name for name, count in counts.items() if count > 1]


def _apart(group, groups):
    """Return the words of a group's key that others of its name do not have."""
    others = [g for g in groups if g.product == group.product and g is not group]
    words = [
        _slug(value).lower()
        for i, value in enumerate(group.key)
        if value and any(len(o.key) <= i or o.key[i] != value for o in others)
    ]
    if any(o.pipeline != group.pipeline for o in others):
        words.append(group.pipeline.removesuffix("Pipeline").lower())
    return words


_GIVEN_TYPES = {
    "image3": "Image3Pipeline",
    "spec3": "Spec3Pipeline",
    "coron3": "Coron3Pipeline",
    "ami3": "Ami3Pipeline",
    "tso3": "Tso3Pipeline",
    "wfs-image3": "WfsCombineStep",
}


def _from_file(association, exposures):
    by_root = {e.root: e for e in exposures}
    path = association["path"]
    kind = str(association.get("asn_type", "")).lower()
    products = association["products"]
    if kind not in _GIVEN_TYPES or len(products) != 1 or not products[0].get("name"):
        msg = (
            f"{path}: asn_type={kind!r} with {len(products)} products; a plan takes level 3 "
            f"associations ({', '.join(_GIVEN_TYPES)}) of one named product."
        )
        raise InvalidRequestError(msg, parameter="files", value=path)
    members, missing = [], []
    for member in products[0]["members"]:
        root = Path(member["expname"]).name.removesuffix(".fits").rpartition("_")[0]
        role = str(member.get("exptype", "science")).lower()
        if root in by_root:
            members.append((by_root[root], role))
        elif role not in ("target_acquisition",):
            missing.append(Path(member["expname"]).name)
    if missing:
        msg = f"{path}: its members {', '.join(missing)} are not among the files."
        raise InvalidRequestError(msg, parameter="files", value=path)
    return Group(
        pipeline=_GIVEN_TYPES[kind],
        product=products[0]["name"],
        asn_id=str(association.get("asn_id") or "a3001"),
        program=str(association.get("program") or "00000"),
        target=str(association.get("target") or "unknown"),
        members=tuple(members),
        given={k: v for k, v in association.items() if k not in ("products", "path")},
    )


def unique_ids(exposures):
    """Return ids that keep exposures apart where those in the headers do not.

    The pipeline aligns all files of one exposure id together.  Where every dither has the same id
    it takes them for one exposure, aligns nothing, and skips the matching of the sky.

    Parameters
    ----------
    exposures : sequence of Exposure
        Members of one product.

    Returns
    -------
    dict of str to str
        ``{root: id}`` for the exposures whose own id is shared by files of the same detector;
        empty where nothing has to be mended.
    """
    shared = defaultdict(list)
    for exposure in exposures:
        if exposure.exposure_id:
            shared[exposure.exposure_id].append(exposure)
    mended = {}
    for known, files in shared.items():
        if max(Counter(e.detector for e in files).values()) == 1:
            continue
        starts = sorted({(e.date, e.time) for e in files})
        per_start = Counter((e.detector, e.date, e.time) for e in files)
        if max(per_start.values()) == 1:
            mended |= {e.root: f"{known}.{starts.index((e.date, e.time)) + 1}" for e in files}
        else:
            mended |= {e.root: e.root for e in files}
    return mended
