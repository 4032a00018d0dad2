"""Configuration of the package; every value is read when it is needed, never at import.

Who wins, first to last: an argument of the call; a running sandbox (`override`); an attribute that
the user set on the class instance; the environment, and ``conf`` (file, ``set_temp``).  The
environment is copied into ``conf`` once at import, so that a worker process that inherits it agrees
with its parent.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias, TypeVar, overload

from astropy.config import ConfigItem, ConfigNamespace

ENVIRONMENT = {
    "mirror": "ASTROQUERY_LIS_MIRROR",
    "cache_dir": "ASTROQUERY_LIS_CACHE_DIR",
    "release": "ASTROQUERY_LIS_RELEASE",
    "tap_url": "ASTROQUERY_LIS_TAP_URL",
    "viewer_url": "ASTROQUERY_LIS_VIEWER_URL",
    "sesame_url": "ASTROQUERY_LIS_SESAME_URL",
}


class Conf(ConfigNamespace):
    """Configuration parameters of `astroquery_lis`.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey, conf
    >>> with conf.set_temp('release', 'dr9'):
    ...     print(LegacySurvey.release)
    dr9
    """

    release = ConfigItem(
        "dr10",
        "Data release used when none is named: the newest one that every service and mirror holds.",
        module="astroquery_lis",
    )
    mirror = ConfigItem(
        "auto",
        "Where files come from: 'auto', a registered name (nersc, nadc, ...), a URL or URL "
        "template, or a local directory laid out like the survey.",
        module="astroquery_lis",
    )
    viewer_url = ConfigItem(
        "https://www.legacysurvey.org/viewer",
        "Address of the survey's viewer, without a slash at the end.",
        module="astroquery_lis",
    )
    tap_url = ConfigItem(
        "https://datalab.noirlab.edu/tap",
        "Address of the TAP service that has the Tractor catalogues.",
        module="astroquery_lis",
    )
    sesame_url = ConfigItem(
        "",
        "Address of the service that knows the positions of names; empty for astropy's, which are "
        "those of CDS.",
        module="astroquery_lis",
    )
    cache_dir = ConfigItem(
        "",
        "Directory of the cache; empty for astroquery's own cache location.",
        module="astroquery_lis",
    )
    cache_size = ConfigItem(
        50.0,
        "Size of the cache in GB above which what was used longest ago is removed; 0 for no limit.",
        cfgtype="float(min=0)",
        module="astroquery_lis",
    )
    disk_margin = ConfigItem(
        1.0,
        "Space in GB that is left free on every disk that is written to.",
        cfgtype="float(min=0)",
        module="astroquery_lis",
    )
    timeout = ConfigItem(
        60.0,
        "Seconds to wait for a connection to answer before giving it up.",
        cfgtype="float(min=0.001)",
        module="astroquery_lis",
    )
    deadline = ConfigItem(
        1800.0,
        "Seconds that a call may take in all to have its answers; of whole files, each megabyte.",
        cfgtype="float(min=0.001)",
        module="astroquery_lis",
    )
    retries = ConfigItem(
        3,
        "How often a request is repeated after a transient failure, before the next mirror.",
        cfgtype="integer(min=0, max=20)",
        module="astroquery_lis",
    )
    max_retry_after = ConfigItem(
        60.0,
        "Longest Retry-After, in seconds, that is waited for; longer ones raise RateLimitedError.",
        cfgtype="float(min=0)",
        module="astroquery_lis",
    )
    max_workers = ConfigItem(
        12,
        "Connections used at once for the files of a request.",
        cfgtype="integer(min=1, max=64)",
        module="astroquery_lis",
    )
    max_query_bricks = ConfigItem(
        100,
        "Most brick catalogues, of about 18 MB each, that one query fetches.",
        cfgtype="integer(min=1)",
        module="astroquery_lis",
    )
    jwst_idle = ConfigItem(
        600.0,
        "Seconds without a task after which the process that holds the JWST pipeline ends.",
        cfgtype="float(min=1)",
        module="astroquery_lis",
    )
    crds_path = ConfigItem(
        "",
        "Directory of the JWST reference files; empty for $CRDS_PATH, then ~/crds_cache.",
        module="astroquery_lis",
    )
    crds_context = ConfigItem(
        "",
        "CRDS context such as jwst_1322.pmap; empty for $CRDS_CONTEXT, then the newest.",
        module="astroquery_lis",
    )
    crds_server_url = ConfigItem(
        "",
        "CRDS server; empty for $CRDS_SERVER_URL, without which only the cache is used.",
        module="astroquery_lis",
    )


conf = Conf()

for _name, _variable in ENVIRONMENT.items():
    if os.environ.get(_variable):
        setattr(conf, _name, os.environ[_variable])

_Text: TypeAlias = (
    Literal["release", "mirror", "viewer_url", "tap_url", "sesame_url", "cache_dir"]
    | Literal["crds_path", "crds_context", "crds_server_url"]
)
_Seconds: TypeAlias = Literal["timeout", "max_retry_after"]
Value = TypeVar("Value")

_overrides: list[dict[str, str]] = []


@contextmanager
def override(**values: str) -> Iterator[None]:
    """Put ``values`` above the configuration and the attributes of every instance, for a while.

    The names are those of `ENVIRONMENT`.  Worker processes that start meanwhile see the same,
    through the environment.
    """
    before = {ENVIRONMENT[name]: os.environ.get(ENVIRONMENT[name]) for name in values}
    os.environ.update({ENVIRONMENT[name]: value for name, value in values.items()})
    _overrides.append(values)
    try:
        yield
    finally:
        _overrides.remove(values)
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value


@overload
def setting(name: _Text, instance_value: None = None) -> str: ...
@overload
def setting(name: _Text, instance_value: Value | None) -> str | Value: ...
@overload
def setting(name: _Seconds, instance_value: float | None = None) -> float: ...
@overload
def setting(name: Literal["retries"]) -> int: ...
@overload
def setting(name: str) -> object: ...
def setting(name: str, instance_value: object = None) -> object:
    """Return the value in force of an item of `Conf`, above which the user may have set another."""
    for values in reversed(_overrides):
        if name in values:
            return values[name]
    return getattr(conf, name) if instance_value is None else instance_value
