"""Finds the folders of the cgroup file system whose limits hold for this process; reading the limits is left to others."""

from pathlib import Path
from typing import Final

MOUNT: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")


def find_folders(mount: Path, membership: Path, controller: str) -> list[Path]:
    """Return the folders that may limit the process in what `controller` (such as `memory`) controls, its own ones first.

    They are its own and those above it, of both versions of cgroups. In a container its own is often the mount itself, whatever the
    membership file says. Not every folder returned exists.
    """
    lines = [line.split(":", 2) for line in membership.read_text().splitlines()] if membership.exists() else []
    folders: list[Path] = []
    for controllers, own in [(line[1], line[2]) for line in lines if len(line) == 3]:
        names = controllers.split(",")
        if controllers and controller not in names:
            continue
        bases = [mount / name for name in dict.fromkeys((controller, controllers))] if controllers else [mount, mount / "unified"]
        parts = [part for part in own.split("/") if part not in ("", "..")]
        folders += [base.joinpath(*parts[:depth]) for base in bases for depth in range(len(parts), -1, -1)]
    return folders
