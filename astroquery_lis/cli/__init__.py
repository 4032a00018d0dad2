"""The command ``astroquery-lis``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .._packages import package_version

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; wrong words exit with 2."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words == ["--version"]:
        print(f"astroquery_lis {package_version()}")
        return 0
    # All the rooms of the package come along, which takes a second or two.
    try:
        from .app import main as run
    except KeyboardInterrupt:
        return 130
    return run(words)
