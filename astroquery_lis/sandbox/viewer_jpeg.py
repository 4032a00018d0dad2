"""Pictures of the simulated viewer: an arcsinh stretch to red, green and blue, as JPEG."""

import io

import numpy as np

__all__ = ["rgb_picture", "to_jpeg"]

# Per band: how much brighter it is drawn, and its share of red, green and blue.
_CLASSIC = {
    "g": (6.0, (0, 0, 1)),
    "r": (3.4, (0, 1, 0)),
    "i": (3.0, (0, 1, 0)),
    "z": (2.2, (1, 0, 0)),
}
_GRIZ = {
    "g": (9.0, (0, 0, 0.75)),
    "r": (5.1, (0, 0.5, 0.25)),
    "i": (4.5, (0.25, 0.5, 0)),
    "z": (3.3, (0.75, 0, 0)),
}
_SOFTENING = 20.0
_OFFSET = 0.03
_QUALITY = 90


def rgb_picture(planes, bands, *, four_bands):
    """Return a colour picture, north up.

    Parameters
    ----------
    planes : `~numpy.ndarray`, shape (n, height, width)
        Nanomaggies per native pixel, south first.
    bands : str
        The band of each plane.
    four_bands : bool
        Whether the layer shares four bands out among the colours.

    Returns
    -------
    `~numpy.ndarray` of uint8, shape (height, width, 3)
    """
    colours = _GRIZ if four_bands else _CLASSIC
    scaled = [
        np.maximum(plane * colours[band][0] + _OFFSET, 0)
        for band, plane in zip(bands, planes, strict=True)
    ]
    brightness = sum(scaled) / len(scaled)
    stretched = np.arcsinh(_SOFTENING * brightness) / np.sqrt(_SOFTENING)
    gain = stretched / np.maximum(brightness, 1e-6)
    picture = np.zeros((*planes.shape[1:], 3), np.float32)
    for band, plane in zip(bands, scaled, strict=True):
        picture += (plane * gain)[..., None] * np.array(colours[band][1], np.float32)
    return (np.clip(picture, 0, 1)[::-1] * 255).astype(np.uint8)


def to_jpeg(picture):
    """Return a picture as the bytes of a JPEG file.

    Parameters
    ----------
    picture : `~numpy.ndarray` of uint8, shape (height, width, 3)
        Red, green and blue, first row on top.

    Returns
    -------
    bytes

    Raises
    ------
    ImportError
        If Pillow is not installed.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=_QUALITY, subsampling="4:2:0")
    return file.getvalue()
