"""What the first task of a process would spend a second or two on, done before the forks."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np

__all__ = ["warm"]

_SHAPES = {
    "RampModel": (1, 3, 8, 8),
    "CubeModel": (1, 8, 8),
    "ImageModel": (8, 8),
}


def warm(job):
    """Fill the caches of the pipeline: schemas, specifications of steps, the rules of CRDS.

    Parameters
    ----------
    job : dict
        ``pipelines`` (class names) and ``configurations`` (lists of CRDS parameters).
    """
    # Whatever goes wrong goes wrong again, and is told, in the task that needs it; CRDS leaves by
    # SystemExit.
    for part in (_models, _pipelines):
        with contextlib.suppress(Exception, SystemExit):
            part(job)


def _models(job):
    from stdatamodels.jwst import datamodels

    with tempfile.TemporaryDirectory() as folder:
        for name, shape in _SHAPES.items():
            path = Path(folder, f"{name}.fits")
            with getattr(datamodels, name)(data=np.zeros(shape, np.float32)) as model:
                model.save(path)
            with datamodels.open(path) as model:
                model.validate()


def _pipelines(job):
    import crds

    from .work import class_of

    for name in job["pipelines"]:
        pipeline = class_of(name)
        steps = getattr(pipeline, "step_defs", {}).values()
        types = {kind for step in steps for kind in step.reference_file_types}
        types |= {step.get_config_reftype() for step in (*steps, pipeline)}
        for parameters in job["configurations"]:
            crds.getrecommendations(parameters, reftypes=sorted(types), observatory="jwst")
        pipeline()
