"""Versions of what a result depends on."""

import importlib.metadata
import platform


def version(package: str) -> str | None:
    """The installed version of a package, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """The versions that a result depends on."""
    names = ("mindspore", "mindcv", "numpy", "opencv-python", "hydra-core")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
