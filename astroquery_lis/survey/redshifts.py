"""The columns of the survey's photometric redshifts, which lie beside the Tractor catalogue.

From the releases' pages on files: DR10 and later have a second set, from fits with the i band.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from .releases import get_release
from .tractor_columns import TractorColumn

__all__ = ["FIRST_RELEASE", "NO_REDSHIFT", "is_redshift", "redshift_columns"]

FIRST_RELEASE = 9
"""The first release with a table of them at Astro Data Lab."""

NO_REDSHIFT = -99.0
"""What the tables hold for none."""

_STATISTICS = ("mean", "median", "std", "l68", "u68", "l95", "u95")


def is_redshift(name: str) -> bool:
    """Tell whether a column, of any table, is a redshift or an error or limit of one."""
    return name == "z_spec" or name.startswith("z_phot_")


@cache
def redshift_columns(release: str) -> Mapping[str, TractorColumn]:
    """Return the columns that a release has of redshifts, by name."""
    number = get_release(release).number
    if number < FIRST_RELEASE:
        return {}
    sets = ("", "_i") if number >= 10 else ("",)
    families = {f"z_phot_{name}{end}": "z_phot" for end in sets for name in _STATISTICS}
    columns = [
        TractorColumn(name, "f4", 1, None, family, None, True)
        for name, family in (families | {"z_spec": "z_spec"}).items()
    ]
    columns.append(TractorColumn("survey", "U10", 1, None, "survey", None, True))
    return {column.name: column for column in columns}
