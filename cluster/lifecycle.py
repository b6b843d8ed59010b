"""Start a cluster, tell how it is, end it and remove all that it left."""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from types import FrameType
from typing import Any

from . import binaries, cgroups, packages, requirements
from .archive import write_program_image
from .components import (
    API_PORT,
    DNS_IMAGE,
    NODE_NAME,
    PAUSE_IMAGE,
    control_plane_commands,
    node_commands,
    server_names,
    write_node_configuration,
)
from .credentials import write_credentials
from .errors import ClusterError
from .images import import_archive
from .paths import HERE, ROOT, images, runs
from .plan import Plan
from .process import SEARCH_PATH, exclusive, has_ended, run, set_parent_death_signal, wait_for
from .progress import heartbeat, say
from .slots import Register, Slot, Starter, parse_routes

DEFAULT_NODE = "demo"
DEFAULT_CONTROL_PLANE = "control-plane"
VOLUMES = 40  # each can be bound once in the life of a cluster
_MAX_SOCKET_PATH = 100  # the kernel's limit is 107 bytes


@dataclass(frozen=True)
class Cluster:
    """One cluster by its name, whether it runs or not."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", self.name):
            raise ClusterError(f"a cluster's name is made of up to 31 lower case letters, digits and hyphens, got {self.name!r}")

    @property
    def state(self) -> Path:
        """The folder of all that belongs to the running cluster."""
        return runs() / self.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "admin.kubeconfig"

    @property
    def plan(self) -> Plan | None:
        """What the cluster was started with."""
        return Plan.read(self.state)

    @property
    def pid(self) -> int | None:
        """The process that all others of the cluster depend on, None when it does not run."""
        return running_pid(self.state)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold off other starts and ends of this cluster."""
        return exclusive(runs() / f".{self.name}.lock", f"another command on cluster {self.name} to end")


def running_pid(state: Path) -> int | None:
    """Return the process id of the cluster in a state folder, None when it does not run.

    The command line must name the folder: a number left in a file by a crash may belong to anyone by now.
    """
    try:
        pid = int((state / "pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if str(state).encode() in command else None


def running_clusters() -> list[Cluster]:
    """Return the clusters of this user that run."""
    folders = sorted(runs().iterdir()) if runs().exists() else []
    return [Cluster(folder.name) for folder in folders if folder.is_dir() and running_pid(folder)]


def up_control_plane(cluster: Cluster, *, controllers: bool, foreground: bool) -> None:
    """Start etcd and the API server on a free port of loopback, and the controller manager if asked for; needs no root."""
    if reason := requirements.missing_for_control_plane():
        raise ClusterError(reason)
    packages.require(packages.CONTROL_PLANE_NAMES)
    programs = binaries.ensure()
    with _starting(cluster):
        port = free_port()
        slot = Slot(0)  # only its range of services is used, and nothing routes there
        server = f"https://127.0.0.1:{port}"
        write_credentials(cluster.state, server, server_names(slot))
        commands = control_plane_commands(cluster.state, programs, "127.0.0.1", port, slot, controllers=controllers)
        _start(cluster, Plan(None, server, commands), foreground=foreground)
        _wait_for_api(cluster, programs)


def up_node(cluster: Cluster, *, network_policy: bool, foreground: bool) -> None:
    """Start a whole node in namespaces of its own and wait until it and its DNS are ready; needs root."""
    packages.require()
    if reason := requirements.missing():
        raise ClusterError(reason)
    programs = binaries.ensure()
    for hidden in ("/var/lib", "/var/log", "/run"):
        if cluster.state.is_relative_to(hidden):
            raise ClusterError(f"{cluster.state} would be hidden in the node, which has a {hidden} of its own; set XDG_CACHE_HOME")
    with _starting(cluster):
        slot = Register().claim(cluster.state, Starter.of(os.getpid()), lambda state: running_pid(state) is not None, _is_usable, _clean)
        say(f"starting node {cluster.name} at {slot.node_ip}")
        server = f"https://{slot.node_ip}:{API_PORT}"
        write_credentials(cluster.state, server, server_names(slot, [slot.node_ip]))
        write_node_configuration(cluster.state, slot)
        commands = control_plane_commands(cluster.state, programs, slot.node_ip, API_PORT, slot, controllers=True)
        commands |= node_commands(cluster.state, programs, slot, network_policy=network_policy)
        environment = {
            "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",  # containerd finds its shim and runc, kube-proxy finds nft
            "KUBERNETES_SERVICE_HOST": slot.node_ip,  # for kube-network-policies
            "KUBERNETES_SERVICE_PORT": str(API_PORT),
        }
        pid = _start(cluster, Plan(slot.number, server, commands, environment), foreground=foreground)
        _connect(slot, pid)
        # The runtime is up before the API server: load images meanwhile, so that they are there when the first pod asks.
        for archive in _system_images(programs):
            import_archive(archive, pid, programs)
        _wait_for_api(cluster, programs)
        _wait_for_node(cluster, programs, slot)


def down(cluster: Cluster) -> bool:
    """End a cluster and remove all that it left; tell whether one ran."""
    with cluster.locked():
        return _down(cluster)


def _down(cluster: Cluster) -> bool:
    ran = _end_processes(cluster)
    Register().release(cluster.state, _clean)
    shutil.rmtree(cluster.state, ignore_errors=True)
    return ran


def _end_processes(cluster: Cluster) -> bool:
    pid = cluster.pid
    if pid is None:
        return False
    # For a node this is `unshare`, whose child is process 1 of the node: when that is gone, so is everything inside.
    children: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may be ending by itself
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        os.kill(pid, signal.SIGKILL)

    def ended() -> bool:
        return all(map(has_ended, [pid, *children]))

    wait_for(f"the processes of {cluster.name} to end", ended, timeout_seconds=30, interval_seconds=0.02)
    return True


def stay_until_ended(cluster: Cluster) -> None:
    """Wait until the cluster or this process is ended, and leave nothing in either case."""
    pid = cluster.pid
    try:
        while pid is not None and not has_ended(pid):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            time.sleep(0.2)
        raise ClusterError(f"cluster {cluster.name} ended by itself")
    finally:
        down(cluster)


def tie_to_parent() -> None:
    """End this process, in order, when its parent ends; a SIGTERM becomes an ordinary exit."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        sys.exit(143)

    parent = os.getppid()
    signal.signal(signal.SIGTERM, leave)
    set_parent_death_signal(signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(143)


def describe(cluster: Cluster) -> dict[str, Any]:
    """Return what `status` tells about a cluster."""
    pid, plan = cluster.pid, cluster.plan
    if pid is None or plan is None:
        return {"name": cluster.name, "running": False}
    told: dict[str, Any] = {"name": cluster.name, "running": True, "kind": "control-plane" if plan.slot is None else "node", "pid": pid}
    told |= {"server": plan.server, "kubeconfig": str(cluster.kubeconfig), "logs": str(cluster.state / "log")}
    if plan.slot is not None:
        slot = Slot(plan.slot)
        told |= {"host": slot.host_ip, "pods": slot.pod_cidr, "services": slot.service_cidr}
    try:
        ready = run(binaries.bin_dir() / "kubectl", f"--kubeconfig={cluster.kubeconfig}", "--request-timeout=3s", "get", "--raw=/readyz")
    except ClusterError as error:
        ready = str(error).splitlines()[-1]
    return told | {"api": ready}


@contextlib.contextmanager
def _starting(cluster: Cluster) -> Iterator[None]:
    """End a previous cluster of this name and make its folder; if the start fails, end what was started but keep its logs."""
    with cluster.locked():
        if _down(cluster):
            say(f"ended the previous cluster {cluster.name}")
        if len(str(cluster.state / "etcd-peer.sock")) > _MAX_SOCKET_PATH:
            raise ClusterError(f"the path {cluster.state} is too long for sockets; set XDG_CACHE_HOME to a shorter one")
        cluster.state.mkdir(parents=True, mode=0o700)
        (cluster.state / "log").mkdir()
        try:
            with heartbeat(lambda seconds: f"still starting {cluster.name}, {seconds:.0f} s so far"):
                yield
        except BaseException:
            _end_processes(cluster)
            Register().release(cluster.state, _clean)
            say(f"cluster {cluster.name} did not start; its logs are in {cluster.state}/log")
            raise


def _start(cluster: Cluster, plan: Plan, *, foreground: bool) -> int:
    """Start the supervisor, in namespaces if the cluster is a node. Return the pid that `down` will kill."""
    plan.write(cluster.state)
    command = [sys.executable, "-m", "cluster.supervisor", str(cluster.state)]
    if plan.slot is not None:
        namespaces = ("--mount", "--net", "--pid", "--ipc", "--uts")
        command = ["unshare", *namespaces, "--fork", "--mount-proc", "--kill-child=SIGKILL", *command]
    # The shell writes its own pid before it becomes the command: however early we crash, `down` finds what to kill.
    shell = ["sh", "-c", 'echo $$ > "$0"; exec "$@"', str(cluster.state / "pid"), *command]
    if foreground:
        shell = ["setpriv", "--pdeathsig", "KILL", *shell]
    with (cluster.state / "log" / "supervisor.log").open("ab") as log:
        subprocess.Popen(
            shell,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": SEARCH_PATH},
            start_new_session=True,
        )
    return wait_for("the supervisor to start", lambda: cluster.pid, timeout_seconds=10, interval_seconds=0.01)


def _connect(slot: Slot, pid: int) -> None:
    """Lay a cable between host and node. Routes and addresses vanish with it."""
    own = Path("/proc/self/ns/net").readlink()
    wait_for("the node's network", lambda: Path(f"/proc/{pid}/ns/net").readlink() != own, timeout_seconds=10, interval_seconds=0.01)
    run("ip", "link", "add", slot.host_link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    run("ip", "address", "add", f"{slot.host_ip}/30", "dev", slot.host_link)
    run("ip", "link", "set", slot.host_link, "up")
    for network in (slot.pod_cidr, slot.service_cidr):
        run("ip", "route", "add", network, "via", slot.node_ip)


def _is_usable(slot: Slot) -> bool:
    return not slot.collides_with(_host_routes()) and not Path(f"/sys/class/net/{slot.host_link}").exists()


def _host_routes() -> list[IPv4Network]:
    return parse_routes(run("ip", "-json", "route", "show", "table", "all"))


def _clean(slot: Slot) -> None:
    """Remove what a dead node can leave on the host.

    The kernel removes the cable with the node's network namespace, but only in its own time; the next `up` may be sooner.
    """
    if Path(f"/sys/class/net/{slot.host_link}").exists():
        with contextlib.suppress(ClusterError):
            run("ip", "link", "delete", slot.host_link)
    cgroups.remove_cgroup(slot.cgroup)


def _kubectl(cluster: Cluster, programs: Path) -> Callable[..., str]:
    def kubectl(*arguments: str | Path, text: str | None = None) -> str:
        return run(programs / "kubectl", f"--kubeconfig={cluster.kubeconfig}", *arguments, text=text)

    return kubectl


def _wait_for_api(cluster: Cluster, programs: Path) -> None:
    kubectl = _kubectl(cluster, programs)
    ended = False

    def is_ready() -> bool:
        nonlocal ended
        if cluster.pid is None:
            ended = True
            return True
        # Ready comes a moment before the first namespace.
        return kubectl("get", "--raw=/readyz") == "ok" and bool(kubectl("get", "namespace", "default"))

    wait_for("the API server to be ready", is_ready, timeout_seconds=120, interval_seconds=0.05)
    if ended:
        log = (cluster.state / "log" / "supervisor.log").read_text().strip().splitlines()
        raise ClusterError(f"the cluster ended at its start: {log[-1] if log else 'without a word'}")
    (cluster.state / "api-ready").touch()  # the supervisor waits for this before it starts the rest


def _wait_for_node(cluster: Cluster, programs: Path, slot: Slot) -> None:
    kubectl = _kubectl(cluster, programs)
    manifests = [string.Template(path.read_text()).substitute(DNS_IP=slot.dns_ip) for path in sorted((HERE / "manifests").glob("*.yaml"))]
    manifests.append(json.dumps({"apiVersion": "v1", "kind": "List", "items": build_volumes(cluster.state)}))
    kubectl("create", "-f", "-", text="\n---\n".join(manifests))
    kubectl("wait", "--for=create", f"node/{NODE_NAME}", "--timeout=120s")
    kubectl("wait", "--for=condition=Ready", f"node/{NODE_NAME}", "--timeout=120s")
    kubectl("rollout", "status", "deployment/coredns", "--namespace=kube-system", "--timeout=120s")


def _system_images(programs: Path) -> list[Path]:
    """Return the archives of the images that the node itself needs, written once for each build."""
    # busybox chooses its function by its own name, so the file must be called busybox.
    busybox = Path(shutil.which("busybox", path=SEARCH_PATH) or "/bin/busybox")
    wanted = (
        (PAUSE_IMAGE, {"/busybox": busybox}, ["/busybox", "sleep", "infinity"]),
        (DNS_IMAGE, {"/coredns": programs / "coredns"}, ["/coredns"]),
    )
    archives = []
    for name, files, entrypoint in wanted:
        archive = images() / f"{name.split('/')[1].split(':')[0]}-{programs.name}.tar"
        if not archive.exists():
            write_program_image(archive, name, files, entrypoint)
        archives.append(archive)
    return archives


def build_volumes(state: Path) -> list[dict[str, Any]]:
    """Return persistent volumes made beforehand. `local`, not hostPath: only for local does the kubelet apply a pod's fsGroup."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    items: list[dict[str, Any]] = []
    for number in range(VOLUMES):
        path = state / "volumes" / f"{number:02}"
        path.mkdir(parents=True)
        spec = {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local",
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        }
        items.append({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"local-{number:02}"}, "spec": spec})
    return items


def free_port() -> int:
    """Return a free port of loopback below those that the kernel gives to outgoing connections, so that none takes it meanwhile."""
    for _ in range(100):
        port = 20000 + secrets.randbelow(12000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ClusterError("no free port found between 20000 and 32000 on 127.0.0.1")
