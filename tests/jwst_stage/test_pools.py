"""Plans against the rules of the `jwst` package, on its own pools and on generated ones.

A file is written for each exposure of a pool, with what headers have; what is planned of the files
has to have the members and roles that the package gives the pool.  What headers cannot tell, the
documentation of associations lists.
"""

import random
import re
from collections import defaultdict
from pathlib import Path

import pytest

from astroquery_lis.jwst_stage.pipelines import EXP_TYPES
from astroquery_lis.jwst_stage.planning.exposures import read_exposure
from astroquery_lis.jwst_stage.planning.groups import STAGE3_ROLES

from . import pools

pytest.importorskip("jwst")

QUICK = [
    "jw00632_dups.csv",
    "jw87800_20180412T163456_pool.csv",
    "pool_005_spec_niriss.csv",
    "pool_007_spec_miri.csv",
    "pool_010_spec_nirspec_lv2bkg.csv",
    "pool_017_spec_nirspec_lv2imprint.csv",
    "pool_019_niriss_wfss.csv",
    "pool_021_tso.csv",
    "pool_023b_nirspec_msa_3nod_subpix.csv",
    "pool_025_nirspec_fss_nod_chop.csv",
]
LONG = [
    "jw09505_20251216t202003_pool.csv",
    "pool_002_image_miri.csv",
    "pool_003_image_nircam.csv",
    "pool_006_spec_nirspec.csv",
    "pool_020_00009_image_miri.csv",
    "pool_023_nirspec_msa_3nod.csv",
    "pool_024_nirspec_fss_nods.csv",
    "pool_024b_nirspec_fss_nods.csv",
    "pool_024c_nirspec_fss_nods.csv",
    "pool_001_candidates.csv",
    "pool_004_wfs.csv",
    "pool_013_coron_nircam.csv",
    "pool_018_all_exptypes.csv",
    "pool_033_wfs_jitter.csv",
]
UNTOLD = {
    # Which of several backgrounds belongs to which observation, only candidates tell.
    ("pool_018_all_exptypes.csv", "jw_00021"),
}
OF_MOSAIC = ("direct_image", "sourcecat", "segmap")


def nameless(root, role):
    """Return the name of a member without the number that the archive gives a target."""
    return re.sub(r"_t\d{3}_", "_", root) if role in OF_MOSAIC else root


def members_of(task):
    if not task.members:
        return frozenset({(task.exposures[0], "science")})
    names = [(Path(m.file or m.input).name.rpartition(".")[0], m.exptype) for m in task.members]
    return frozenset((nameless(n.rpartition("_")[0], role), role) for n, role in names)


class Comparison:
    """What is planned from the files of a pool, beside what the rules make of the pool."""

    def __init__(self, pool, folder, plan_of):
        self.roots = set(pools.write_files(pool, folder))
        plan = plan_of(folder)
        self.exposures = {e.root: e for e in map(read_exposure, folder.glob("*_uncal.fits"))}
        self.second = {
            (t.exposures[0], "rateints" if "calints" in t.name else "rate"): members_of(t)
            for t in plan.tasks
            if t.stage == 2
        }
        self.third = [
            (t.association["asn_type"], t.association["product"], members_of(t))
            for t in plan.tasks
            if t.stage == 3
        ]
        self.rules2 = defaultdict(list)
        self.rules3 = []
        for kind, suffix, product, members in pools.associations_of(pool):
            kept = frozenset(
                (nameless(root, role), role)
                for root, role in members
                if root in self.roots or role in OF_MOSAIC
            )
            if kind.endswith("2"):
                (root,) = (r for r, role in members if role == "science")
                self.rules2[root, suffix].append(kept)
            else:
                kept = frozenset((r, role) for r, role in kept if role in STAGE3_ROLES)
                self.rules3.append((kind, product, kept))

    def is_aside(self, root):
        """Whether a plan makes no product of an exposure of its own."""
        exposure = self.exposures.get(root)
        if exposure is None or exposure.is_imprint:
            return True
        return EXP_TYPES[exposure.exp_type].is_acquisition


def science(members):
    return {root for root, role in members if role == "science"}


def check_second(compared, name=""):
    for (root, suffix), members in compared.second.items():
        if (name, root) not in UNTOLD:
            assert members in compared.rules2[root, suffix], root
    for root, suffix in compared.rules2:
        assert (root, suffix) in compared.second or compared.is_aside(root), root


def check_third(compared):
    """Each product is one of the rules', or all of theirs of several observations together."""
    calibrated = {root for root, _ in compared.rules2}
    for kind, product, members in compared.third:
        same = [p for k, p, m in compared.rules3 if k == kind and m == members]
        if same:
            # What the rules give one name twice, gets names of its own.
            names = tuple(re.sub(r"_t\d+|-[oc]\d+", "", p) for p in same)
            assert re.sub(r"_t\d+|-[oc]\d+", "", product).startswith(names)
            continue
        assert "-c1" in product, product
        parts = [m for k, _, m in compared.rules3 if k == kind and science(m) <= science(members)]
        assert set().union(*map(science, parts)) == science(members), product
    for kind, product, members in compared.rules3:
        left = science(members) & calibrated
        assert any(left <= science(m) for k, _, m in compared.third if k == kind) or not left, (
            product
        )


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)]
)
def test_members_and_roles_are_those_of_the_rules(name, tmp_path, plan_of):
    compared = Comparison(pools.read_pool(name), tmp_path, plan_of)
    assert compared.second
    check_second(compared, name)
    check_third(compared)


def check_generated(mode, seed, folder, plan_of):
    compared = Comparison(pools.generated(mode, random.Random(f"{mode} {seed}")), folder, plan_of)
    check_second(compared)
    check_third(compared)
    assert compared.third


@pytest.mark.parametrize("mode", pools.MODES)
def test_generated_pools(mode, tmp_path, plan_of):
    check_generated(mode, 0, tmp_path, plan_of)


@pytest.mark.slow
@pytest.mark.parametrize("mode", pools.MODES)
def test_twenty_generated_pools(mode, tmp_path, plan_of):
    for seed in range(1, 21):
        folder = tmp_path / str(seed)
        folder.mkdir()
        check_generated(mode, seed, folder, plan_of)
