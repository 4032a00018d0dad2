"""A plan of two exposures by hand, what CRDS would say of it, and a run that only leaves traces."""

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
from astropy.io import fits

from astroquery_lis.jwst_stage.crds_cache import CrdsEnvironment
from astroquery_lis.jwst_stage.references import Resolution
from astroquery_lis.jwst_stage.states import Fingerprints
from astroquery_lis.jwst_stage.tasks import (
    Member,
    Record,
    Reduction,
    Task,
    read_records,
    write_record,
)

I2D = "stage3/mosaic_i2d.fits"
DEFAULTS = {
    "Detector1Pipeline": {
        "jump": {"skip": False, "rejection_threshold": 5.0, "maximum_cores": "1"},
        "ipc": {"skip": True, "save_results": False},
    },
    "Image2Pipeline": {"flat_field": {"skip": False}, "photom": {"skip": False}},
    "Image3Pipeline": {"tweakreg": {"skip": False, "minobj": 4}, "resample": {"pixfrac": 1.0}},
}
REFERENCES = {
    "Detector1Pipeline": {"dark": "jwst_dark_0001.fits", "refpix": "N/A"},
    "Image2Pipeline": {"flat": "jwst_flat_0001.fits"},
    "Image3Pipeline": {},
}


@dataclass(frozen=True)
class SmallPlan:
    """What the fingerprints need of a plan."""

    tasks: tuple
    exposures: tuple = ()
    configurations: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)

    def of(self, name):
        return next(task for task in self.tasks if task.name == name)

    def with_task(self, name, **changes):
        tasks = (replace(t, **changes) if t.name == name else t for t in self.tasks)
        return replace(self, tasks=tuple(tasks))


def write_uncal(path, value=1.0, date="2026-01-01T00:00:00"):
    hdul = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.full((4, 4), value), name="SCI")])
    hdul[0].header["DATE"] = date
    hdul.writeto(path, overwrite=True)


def small_plan(folder, exposures=2):
    """Return rate, cal and mosaic of some uncal files, which are written too."""
    folder.mkdir(exist_ok=True)
    tasks, cals = [], []
    for number in range(1, exposures + 1):
        uncal = folder / f"jw{number}_uncal.fits"
        write_uncal(uncal, number)
        rate, cal = f"stage1/jw{number}_rate.fits", f"stage2/jw{number}_cal.fits"
        common = {"configuration": "one", "exposures": (f"jw{number}",)}
        tasks.append(
            Task(
                rate,
                1,
                pipeline="Detector1Pipeline",
                inputs=(str(uncal),),
                outputs=(rate,),
                **common,
            )
        )
        tasks.append(
            Task(cal, 2, pipeline="Image2Pipeline", inputs=(rate,), outputs=(cal,), **common)
        )
        cals.append(cal)
    tasks.append(
        Task(
            I2D,
            3,
            pipeline="Image3Pipeline",
            inputs=tuple(cals),
            outputs=(I2D, "stage3/mosaic_cat.ecsv"),
            association={"asn_id": "o001", "product": "mosaic"},
            members=tuple(Member(cal) for cal in cals),
            configuration="one",
        )
    )
    return SmallPlan(tuple(tasks))


def resolution_of(plan, *, references=None, parameters=None, context="jwst_0001.pmap"):
    """Return what CRDS would say: names of references and parameters may be changed by type."""
    by_name, values, base, pars = {}, {}, {}, {}
    for task in plan.tasks:
        if task.kind != "pipeline":
            continue
        named = {**REFERENCES[task.pipeline]}
        named.update({t: n for t, n in (references or {}).items() if t in named})
        by_name[task.name] = {
            reftype: {
                "name": name,
                "path": "",
                "sha1": "" if name == "N/A" else hashlib.sha1(name.encode()).hexdigest(),
                "bytes": 0,
                "present": True,
            }
            for reftype, name in named.items()
        }
        defaults = {step: dict(v) for step, v in DEFAULTS[task.pipeline].items()}
        for step, changed in (parameters or {}).items():
            if step in defaults:
                defaults[step].update(changed)
        base[task.name] = defaults
        asked = {step: {**v, **task.steps.get(step, {})} for step, v in defaults.items()}
        values[task.name] = asked
        pars[task.name] = {}
    return Resolution(
        context,
        CrdsEnvironment("/nowhere", context),
        references=by_name,
        parameter_references=pars,
        parameters=values,
        base=base,
        crds={name: {} for name in values},
    )


def finish(plan, resolution, output_dir, *, only=None):
    """Leave the products and the records of a run."""
    made = Fingerprints(Reduction(plan, output_dir, resolution), read_records(output_dir))
    for task in plan.tasks:
        if only is not None and task.name not in only:
            continue
        products = []
        for name in task.outputs:
            path = output_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{name} made".encode() * 10)
            status = path.stat()
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            products.append(
                {
                    "file": name,
                    "bytes": status.st_size,
                    "mtime_ns": status.st_mtime_ns,
                    "sha256": sha256,
                }
            )
        fingerprint = made.of(task.name)
        write_record(output_dir, Record(task.name, "done", fingerprint, products))
