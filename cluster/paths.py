"""Folders that the modules share."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def cache() -> Path:
    """Return the folder of everything that is built, fetched or running; it can be deleted when no cluster runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vectorindex"


def runs() -> Path:
    """Return the folder that holds one folder for each cluster."""
    return cache() / "run"


def images() -> Path:
    """Return the folder of image archives."""
    return cache() / "images"
