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
    """Fill the caches of schemas, and of the specifications of ``job['pipelines']``."""
    # Whatever goes wrong goes wrong again, and is told, in the task that needs it.
    for part in (_models, _pipelines):
        with contextlib.suppress(Exception):
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
    from .work import class_of

    for name in job["pipelines"]:
        class_of(name)()
