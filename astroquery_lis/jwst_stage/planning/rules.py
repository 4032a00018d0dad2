"""What belongs together by the rules of the `jwst` package: every mode but plain imaging.

The rules read a pool, a table of the archive's.  Here it is made of headers: what the archive knows
and headers do not are the candidates, sets of observations that the proposer wanted together.  Each
observation is one, and another with the backgrounds and imprints of its program; all observations
of a program are a group, which brings reference stars and rolls of a target together.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..pipeline import ask, require_jwst
from .exposures import KEYWORDS
from .pipelines import IMAGING, STAGE3_PIPELINES, is_acquisition, is_integrations, stage_classes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .exposures import Exposure

_WHOLE_PROGRAM = "c1001"
_FIRST_WITH_BACKGROUND = 1002
_WITHIN_AN_OBSERVATION = ("Tso3Pipeline", "WfsCombineStep")

_WORDS = (
    "program", "visit", "visit_type", "visit_group", "sequence_id", "activity_id",
    "exposure_number", "exp_type", "instrument", "detector", "channel", "module", "filter", "pupil",
    "grating", "band", "slit", "lamp", "subarray", "patttype",
)  # fmt: skip
_COLUMNS = {KEYWORDS[name].lower(): name for name in _WORDS} | {
    "nints": "n_ints",
    "patt_num": "position_number",
    "tsovisit": "is_tso",
    "bkgdtarg": "is_background",
    "is_psf": "is_psf",
    "is_imprt": "is_imprint",
}
"""Columns of a pool, and the attributes of an exposure that hold them."""


@dataclass(frozen=True, slots=True)
class Association:
    """What belongs together in one product of stage 2 or 3.

    ``header`` is the association without its product, whose name may hold ``{source_id}`` and
    ``{slit_name}`` for the pipeline.  ``members`` are the exposures with their roles, ``suffix`` is
    that of the science members, ``direct`` a direct image whose mosaic gives slitless spectra their
    sources, and ``key`` what the exposures have in common.
    """

    origin: Literal["rules", "images", "file"]
    header: dict[str, Any]
    product: str
    members: tuple[tuple[Exposure, str], ...]
    suffix: str = ""
    direct: Exposure | None = None
    key: tuple[str, ...] = ()

    @property
    def exposures(self) -> list[Exposure]:
        """All members, without their roles."""
        return [exposure for exposure, _ in self.members]

    @property
    def science(self) -> list[Exposure]:
        """Members whose product it is."""
        return [exposure for exposure, role in self.members if role == "science"]

    @property
    def pipeline(self) -> str:
        """Class that stage 3 runs on it."""
        return STAGE3_PIPELINES[str(self.header["asn_type"]).lower()]

    @property
    def file_stem(self) -> str:
        """Name of the product without what the pipeline fills in."""
        stem = self.product.replace("{source_id}", "").replace("{slit_name}", "")
        stem = stem.replace("{suffix}", "wfscmb")
        while "__" in stem or "-_" in stem or "_-" in stem or stem.endswith("-"):
            stem = stem.replace("__", "_").replace("-_", "_").replace("_-", "_").rstrip("-")
        return stem


def is_stage3(header: Mapping[str, Any]) -> bool:
    """Return True for the association of a product of calibrated exposures."""
    return str(header.get("asn_type", "")).endswith("3")


def is_plain(exposures: Sequence[Exposure]) -> bool:
    """Return True if all are images that stage 2 takes one by one and stage 3 as mosaics."""
    return all(
        e.exp_type in IMAGING
        and stage_classes(e)[2] == "Image3Pipeline"
        and not (e.is_background or e.is_psf or e.is_imprint or e.is_tso)
        for e in exposures
    )


def associate(
    exposures: Iterable[Exposure], targets: Sequence[str]
) -> tuple[list[Association], list[Association]]:
    """Return the associations of stage 2 and of stage 3; ``targets`` gives each its number."""
    programs = defaultdict(list)
    for exposure in exposures:
        programs[exposure.program].append(exposure)
    if not programs:
        return [], []
    require_jwst()
    pools = list(programs.values())
    text = json.dumps([_rows(pool, targets) for pool in pools])
    level2: list[Association] = []
    level3: list[Association] = []
    for pool, found in zip(pools, _asked(text), strict=True):
        associations = [_association(values, pool) for values in found]
        level2 += _fullest(a for a in associations if not is_stage3(a.header))
        level3 += _widest([a for a in associations if is_stage3(a.header)])
    return level2, level3


def _rows(exposures: Sequence[Exposure], targets: Sequence[str]) -> list[dict[str, str]]:
    everyone = {_place(e) for e in exposures}
    serving = {_place(e) for e in exposures if e.is_background}
    serving |= everyone - {_place(e) for e in exposures if not e.is_imprint}
    served = sorted({_place(e) for e in exposures if not (e.is_background or e.is_imprint)})
    rows = []
    for index, exposure in enumerate(exposures):
        own = _place(exposure)
        candidates = [(f"o{own[1]}", "observation")]
        if len(everyone) > 1 and stage_classes(exposure)[2] not in _WITHIN_AN_OBSERVATION:
            candidates.append((_WHOLE_PROGRAM, "group"))
        candidates += [
            (f"c{number}", "background")
            for number, other in enumerate(served, _FIRST_WITH_BACKGROUND)
            if serving and other[0] == own[0] and (own == other or own in serving)
        ]
        row = _row(exposure, index, targets)
        rows.append({**row, "obs_num": own[1], "asn_candidate": str(candidates)})
    return rows


def _place(exposure: Exposure) -> tuple[str, str]:
    return exposure.instrument, exposure.observation or "001"


def _row(exposure: Exposure, index: int, targets: Sequence[str]) -> dict[str, str]:
    # A number stands for the name, which the rules would have to be able to read.
    row = {name: _word(getattr(exposure, attribute)) for name, attribute in _COLUMNS.items()}
    row |= {name.lower(): _word(value) for name, value in exposure.pool.items()}
    row.setdefault("subpxpns", row.get("subpxpts", "null"))
    row.setdefault("dithptin", row["patt_num"])
    row.setdefault("mostilno", "1")
    row.setdefault("dms_note", "null")
    row.setdefault("obs_id", f"v{exposure.program}{exposure.observation}{exposure.visit}p0")
    return row | {
        "filename": f"{index:06d}_uncal.fits",
        "targetid": str(targets.index(exposure.target) + 1),
        "pntgtype": "target_acquisition" if is_acquisition(exposure) else "science",
    }


def _word(value: str | bool | int) -> str:
    if isinstance(value, bool):
        return "t" if value else "f"
    word = str(value).strip().lower()
    return "null" if word in ("", "n/a", "none") else word


def _association(values: Mapping[str, Any], pool: Sequence[Exposure]) -> Association:
    return Association(
        "rules",
        header=values["header"],
        product=values["product"],
        members=tuple((pool[index], role) for index, role in values["members"]),
        suffix=values["suffix"],
        direct=None if values["direct"] is None else pool[values["direct"]],
    )


def _fullest(associations: Iterable[Association]) -> list[Association]:
    """Return one association for each exposure: that with most members of the right kind."""
    best: dict[str, Association] = {}
    for association in associations:
        exposure = association.science[0]
        if association.suffix != ("rateints" if is_integrations(exposure) else "rate"):
            continue
        other = best.get(exposure.root)
        if other is None or len(other.members) < len(association.members):
            best[exposure.root] = association
    return list(best.values())


def _widest(associations: list[Association]) -> list[Association]:
    """Return the associations that are no part of another one."""
    sets = [frozenset((e.root, role) for e, role in a.members) for a in associations]
    sciences = [frozenset(e.root for e in a.science) for a in associations]
    kinds = [(a.header["asn_rule"], a.suffix) for a in associations]

    def is_part(i: int, j: int) -> bool:
        if i == j or kinds[i] != kinds[j] or not sciences[i] <= sciences[j]:
            return False
        if sciences[i] < sciences[j] or sets[i] < sets[j]:
            return True
        return sets[i] == sets[j] and j < i

    numbers = range(len(associations))
    return [associations[i] for i in numbers if not any(is_part(i, j) for j in numbers)]


@functools.lru_cache(maxsize=16)
def _asked(text: str) -> list[list[dict]]:
    return ask("planning.rules:rules_in_process", {"pools": json.loads(text)})["pools"]


# ---- in the process of the pipeline -------------------------------------------------------------

_HEADER = ("asn_type", "asn_rule", "asn_id", "program", "target", "degraded_status", "code_version")


def rules_in_process(job: Mapping[str, Any]) -> dict[str, list]:
    """Return the associations of each of ``job['pools']``, lists of rows."""
    from jwst.associations import AssociationPool
    from jwst.associations.generator.generate_per_candidate import generate_per_candidate

    pools = []
    for rows in job["pools"]:
        names = sorted({name for row in rows for name in row})
        table = [[row.get(name, "null") for row in rows] for name in names]
        pool = AssociationPool(table, names=names)
        pools.append([_values(asn) for asn in generate_per_candidate(pool, None)])
    return {"pools": pools}


def _values(association: Any) -> dict[str, object]:
    product = association["products"][0]
    members = []
    suffix = ""
    for member in product["members"]:
        index, _, kind = member["expname"].removesuffix(".fits").rpartition("_")
        if not index.isdigit():
            continue  # the mosaic of direct images, which `direct` stands for
        members.append((int(index), member["exptype"].lower()))
        if member["exptype"].lower() == "science":
            suffix = kind
    direct = getattr(association, "direct_image", None)
    return {
        "header": {name: association.data[name] for name in _HEADER if name in association.data},
        "product": product["name"],
        "members": members,
        "suffix": suffix,
        "direct": None if direct is None else int(direct["expname"].partition("_")[0]),
    }
