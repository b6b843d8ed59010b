"""The control group below which a node keeps all its pods: made at the start, removed at the end."""

import contextlib
import os
from pathlib import Path

from .process import wait_for

ROOT = Path("/sys/fs/cgroup")
NEEDED = ("cpu", "memory", "pids")


def is_version_2(root: Path = ROOT) -> bool:
    """Tell whether one tree holds all controllers (version 2) or each has its own (version 1)."""
    return (root / "cgroup.controllers").exists()


def make_cgroup(name: str, root: Path = ROOT) -> None:
    """Make the group, in every controller: the kubelet demands that it exists beforehand."""
    if is_version_2(root):
        group = root / name
        group.mkdir(exist_ok=True)
        for folder in (root, group):
            for controller in (folder / "cgroup.controllers").read_text().split():
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        return
    for controller_root in controller_roots(root):
        group = controller_root / name
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # starts empty and then accepts no process
            if (controller_root / setting).exists():
                (group / setting).write_text((controller_root / setting).read_text())


def controller_roots(root: Path = ROOT) -> list[Path]:
    """Return the trees of version 1; several controllers can share one, under symbolic links."""
    return [folder for folder in root.iterdir() if not folder.is_symlink() and (folder / "cgroup.procs").exists()]


def remove_cgroup(name: str, root: Path = ROOT) -> None:
    """Remove the group and all below it: possible only from the innermost outwards, a moment after the last process has ended."""
    tops = [top for top in (root / name, *root.glob(f"*/{name}")) if top.exists()]

    def try_once() -> bool:
        for top in tops:
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        return not any(top.exists() for top in tops)

    wait_for("control groups to empty", try_once, timeout_seconds=10)


def obstacle(root: Path = ROOT) -> str | None:
    """Return why no control groups can be made here, None if they can."""
    if is_version_2(root):
        available = (root / "cgroup.controllers").read_text().split()
        absent = [name for name in NEEDED if name not in available]
        if absent:
            return f"control groups lack the controllers {', '.join(absent)}"
        passed_down = (root / "cgroup.subtree_control").read_text().split()
        # Only the root of the whole machine may hold processes and pass controllers down at once; a container's root may not.
        is_inner = (root / "cgroup.type").exists()
        if is_inner and (root / "cgroup.procs").read_text().strip() and not set(NEEDED) <= set(passed_down):
            return "the control group of this container holds processes and so cannot pass controllers down"
        return None if os.access(root, os.W_OK) else "control groups are read-only"
    absent = [name for name in NEEDED if not (root / name / "cgroup.procs").exists()]
    if absent:
        return f"control groups lack the controllers {', '.join(absent)}"
    blocked = [folder.name for folder in controller_roots(root) if not os.access(folder, os.W_OK)]
    return f"control groups are read-only ({', '.join(blocked)})" if blocked else None
