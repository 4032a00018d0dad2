"""The viewer's own pictures."""

import io

import numpy as np

from ..exceptions import NoCoverageError, OptionalDependencyError, UnexpectedContentError

__all__ = ["viewer_picture"]

BLANK = 32
"""Level of the uniform grey that the viewer paints where a layer has nothing."""


def _image_module():
    try:
        from PIL import Image
    except ImportError as error:
        msg = "Pictures need pillow: install astroquery_lis[plot]."
        raise OptionalDependencyError(msg, cause=error) from error
    return Image


def viewer_picture(request, service):
    """Return the viewer's picture of a place."""
    module = _image_module()
    parameters = request.parameters(next(request.parts()), request.bands or ())
    asked = {k: v for k, v in parameters.items() if k not in ("invvar", "maskbits")}
    radius_deg = request.grid.scale_deg * max(request.ny, request.nx)
    box = request.ra_deg, request.dec_deg, radius_deg
    data = service.jpeg("cutout.jpg", box=box, **asked)
    url = service.address("cutout.jpg", **asked)
    try:
        with module.open(io.BytesIO(data)) as image:
            picture = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        msg = f"{url} sent a JPEG that cannot be read: {error}."
        raise UnexpectedContentError(msg, url=url, cause=error) from error
    if picture.shape != (request.ny, request.nx, 3):
        msg = f"{url} sent {picture.shape[:2]} pixels; {(request.ny, request.nx)} were asked."
        raise UnexpectedContentError(msg, url=url)
    if (picture == BLANK).all():
        at = f"RA {request.ra_deg:.6f}, Dec {request.dec_deg:+.6f}"
        msg = f"Layer {request.layer} has no data at {at}: the picture is blank."
        raise NoCoverageError(msg, url=url)
    return picture
