"""Sets of parameters for common kinds of data; every value with the reason for it.

A preset stands above the parameters of CRDS and below a recipe and ``steps=``.  It has only what
depends on the purpose of the images; what depends on the instrument is CRDS's to say.  Faster
settings that cost accuracy (``pixmap_stepsize``) are in none of them.
"""

__all__ = ["PRESETS"]

_NO_RESAMPLE = (
    "the resampled image of a single exposure is no input of stage 3; without it stage 2 takes "
    "less time and half of the disk"
)
_SNOWBALLS = (
    "large cosmic ray events (snowballs) have halos that the search for jumps alone leaves; the "
    "step itself looks for them only if it is told to"
)

PRESETS = {
    "default": {
        "description": "What CRDS and the pipeline have for each step.",
        "steps": {},
        "reasons": {},
    },
    "nircam-imaging": {
        "description": "NIRCam images of any field.",
        "steps": {
            "jump": {"expand_large_events": True},
            "image2": {"resample": {"skip": True}},
        },
        "reasons": {
            "jump.expand_large_events": _SNOWBALLS,
            "image2.resample.skip": _NO_RESAMPLE,
        },
    },
    "nircam-deep": {
        "description": "Deep NIRCam images of fields that are mostly empty sky.",
        "steps": {
            "jump": {"expand_large_events": True},
            "clean_flicker_noise": {"skip": False, "autoparam": True},
            "image2": {"resample": {"skip": True}},
            "skymatch": {"subtract": True},
        },
        "reasons": {
            "jump.expand_large_events": _SNOWBALLS,
            "clean_flicker_noise.skip": (
                "1/f noise leaves stripes that many exposures do not average out; where most of a "
                "row is sky, its median is the stripe. Not for fields filled by extended light, "
                "which it would remove too"
            ),
            "clean_flicker_noise.autoparam": (
                "the step chooses the fit of noise and background from each image"
            ),
            "image2.resample.skip": _NO_RESAMPLE,
            "skymatch.subtract": (
                "exposures of several visits have different sky levels; subtracted, they combine "
                "to a mosaic without steps at their edges. The step only measures them otherwise"
            ),
        },
    },
    "miri-imaging": {
        "description": "MIRI images.",
        "steps": {
            "jump": {"find_showers": True},
            "image2": {"resample": {"skip": True}},
        },
        "reasons": {
            "jump.find_showers": (
                "cosmic rays make faint, wide showers in MIRI's detectors, which the step looks "
                "for only if it is told to"
            ),
            "image2.resample.skip": _NO_RESAMPLE,
        },
    },
}
"""By name: ``description``, ``steps`` as for `~.parameters.check`, and ``reasons`` by parameter."""
