"""The reference catalogues that a plan names and that have to be made before it runs."""

import warnings
from dataclasses import replace
from pathlib import Path

from ...exceptions import CrdsUnavailable, StageWarning
from ..tasks import REFCATS

__all__ = ["make_catalogs", "with_catalogs"]


def with_catalogs(plan, output_dir):
    """Return the plan with the catalogues below the output directory named by their full paths.

    Parameters
    ----------
    plan : Plan
        A plan, whose catalogues may be named relative to an output directory that it did not know.
    output_dir : path-like
        The output directory.

    Returns
    -------
    Plan
    """
    return replace(
        plan,
        output_dir=str(output_dir),
        tasks=tuple(_with_catalog(task, Path(output_dir)) for task in plan.tasks),
    )


def _with_catalog(task, output_dir):
    name = task.steps.get("tweakreg", {}).get("abs_refcat")
    if not name or not str(name).startswith("refcat/"):
        return task
    tweakreg = {**task.steps["tweakreg"], "abs_refcat": str(output_dir / name)}
    return replace(task, steps={**task.steps, "tweakreg": tweakreg})


def make_catalogs(plan, *, survey, offline=False):
    """Make the catalogues that a plan names and that are not there.

    Parameters
    ----------
    plan : Plan
        With full paths, see `with_catalogs`.
    survey : `~astroquery_lis.LegacySurveyClass`
        Asked for Tractor.
    offline : bool, optional
        Whether nothing may be asked.

    Returns
    -------
    list of (path, bool)
        Each catalogue, and whether it was made now.

    Raises
    ------
    CrdsUnavailable
        If one is missing and ``offline``.
    """
    kind = plan.options.get("abs_refcat")
    if kind not in REFCATS:
        return []
    exposures = {exposure.root: exposure for exposure in plan.exposures}
    found = []
    for task in plan.tasks:
        path = task.steps.get("tweakreg", {}).get("abs_refcat")
        if task.stage != 3 or not path:
            continue
        path = Path(path)
        missing = not path.exists()
        if missing and offline:
            msg = (
                f"abs_refcat={kind!r}: the catalogue {path} is missing; call prefetch_references "
                "where there is a network."
            )
            raise CrdsUnavailable(msg, missing=[str(path)])
        if missing:
            from ..legacy.refcat import make_reference

            path.parent.mkdir(parents=True, exist_ok=True)
            part = replace(plan, exposures=tuple(exposures[root] for root in task.exposures))
            with warnings.catch_warnings():
                # Whoever set it knows how few there are.
                if "abs_minobj" in task.steps["tweakreg"]:
                    warnings.filterwarnings("ignore", ".*abs_minobj", StageWarning)
                make_reference(part, catalog=kind, survey=survey, path=path)
        found.append((path, missing))
    return found
