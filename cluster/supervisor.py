"""The one process that a cluster consists of: it starts the daemons, restarts those that exit, and takes all with it when it ends.

Run as `python -m cluster.supervisor STATE` by `cluster.lifecycle`. For a node it is process 1 of its own pid namespace, so that the
kernel ends every daemon and every container when it is killed, and unmounts everything when the last of them is gone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from .cgroups import make_cgroup
from .components import NODE_NAME, Commands
from .plan import Plan
from .process import die_with_parent, run, wait_for
from .slots import Slot

# The kubelet sets these for the whole machine at its start.
_SYSCTLS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
_RESTART_PAUSE_SECONDS = 0.5
# What may start before the API server is ready.
_FIRST = ("etcd", "kube-apiserver", "containerd")


def prepare_node(state: Path, slot: Slot) -> None:
    """Make this mount, network and host name namespace look like a machine of its own."""
    # Volumes and network namespaces of pods are mounts that containers must see appear: share them, inside here only.
    run("mount", "--make-rshared", "/")
    # The daemons keep their data below /var/lib and log below /var/log. Folders of our own there instead of many options, some of
    # which do not exist.
    for folder in ("/var/lib", "/var/log"):
        private = state / folder.strip("/").replace("/", "-")
        private.mkdir()
        run("mount", "--bind", private, folder)
    # Images in memory, which takes about twice their size: each start unpacks them anew, thousands of files. An ext4 without
    # journal is slow to hand out inodes again that were just deleted: 8 s for an image that loads in 2 s like this.
    Path("/var/lib/containerd").mkdir()
    run("mount", "-t", "tmpfs", "-o", "mode=711", "tmpfs", "/var/lib/containerd")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    hide_sysctls(state)
    make_cgroup(slot.cgroup)
    run("hostname", NODE_NAME)
    write_policy_account(state)
    join_network(slot)
    divert_pod_traffic(slot)


def hide_sysctls(state: Path) -> None:
    """Show the kubelet files that hold what it wants to set, so that it leaves the machine's settings alone."""
    for name, value in _SYSCTLS.items():
        shown = state / "sysctl" / name
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.write_text(f"{value}\n")
        if Path(f"/proc/sys/{name}").exists():
            run("mount", "--bind", shown, f"/proc/sys/{name}")


def write_policy_account(state: Path) -> None:
    """Let kube-network-policies, which only knows how to log in from within a pod, find here what it would find there."""
    account = Path("/run/secrets/kubernetes.io/serviceaccount")
    account.mkdir(parents=True)
    (account / "ca.crt").write_bytes((state / "credentials" / "ca.crt").read_bytes())
    (account / "token").write_bytes((state / "credentials" / "kube-network-policies.token").read_bytes())


def join_network(slot: Slot) -> None:
    """Take the node's end of the cable once the host has laid it."""
    run("ip", "link", "set", "lo", "up")
    wait_for("the cable from the host", Path("/proc/sys/net/ipv4/conf/eth0").exists, timeout_seconds=15, interval_seconds=0.01)
    run("ip", "address", "add", f"{slot.node_ip}/30", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "unreachable", "default")  # nothing leaves for the world: calls fail at once, not by time-out
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def divert_pod_traffic(slot: Slot) -> None:
    """Show the first packet of every connection from or to a pod to kube-network-policies, which lets it pass or not.

    It makes such rules itself, with an nftables statement (queue) that some kernels are built without; then its rules are refused
    as a whole and no policy is enforced. The iptables target NFQUEUE does the same and is there. Where both exist a packet is judged
    twice, with the same outcome. FORWARD and INPUT, not OUTPUT: what the node itself sends to pods, such as probes, is never subject
    to a policy. With bypass, nothing is lost while nobody listens to the queue.
    """
    add = ("iptables", "-t", "mangle", "-A")
    queue = ("-j", "NFQUEUE", "--queue-num", "100", "--queue-bypass")
    for chain in ("FORWARD", "INPUT"):
        run(*add, chain, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
        run(*add, chain, "-s", slot.pod_cidr, *queue)
    run(*add, "FORWARD", "-d", slot.pod_cidr, *queue)


class Supervisor:
    """Keeps every daemon running until SIGTERM, and reaps orphans, which is the duty of a process 1.

    Clients of the API server wait until the starter has seen it ready. Sooner, they are refused (their rights do not exist yet), and
    each then pauses for seconds: a node that starts everything at once is ready later.
    """

    def __init__(self, state: Path, commands: Commands, environment: dict[str, str]) -> None:
        self._state = state
        self._commands = commands
        self._environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
        self._running: dict[int, str] = {}
        self._waiting = {name for name in commands if name not in _FIRST}
        self._due = {name: 0.0 for name in commands if name in _FIRST}  # daemon: when to start it

    def run(self) -> None:
        """Work until SIGTERM."""
        signal.signal(signal.SIGTERM, self._stop)
        while True:
            if self._waiting and (self._state / "api-ready").exists():
                self._due |= dict.fromkeys(self._waiting, 0.0)
                self._waiting.clear()
            for name in [name for name, moment in self._due.items() if moment <= time.monotonic()]:
                del self._due[name]
                self._start(name)
            if not self._reap():
                time.sleep(0.05)

    def _start(self, name: str) -> None:
        with (self._state / "log" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                self._commands[name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                preexec_fn=die_with_parent,  # noqa: PLW1509  (this process has one thread)
            )
        self._running[process.pid] = name

    def _reap(self) -> bool:
        """Take note of one child that ended; tell whether there was one."""
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:  # none at all at this moment
            return False
        if pid == 0:
            return False
        if name := self._running.pop(pid, None):
            print(f"{name} ended with status {status}, starting it again", flush=True)
            self._due[name] = time.monotonic() + _RESTART_PAUSE_SECONDS
        return True

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        for pid in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        sys.exit(0)


def main(state: Path) -> None:
    """Prepare the node, if it is one, and run its daemons."""
    plan = Plan.read(state)
    if plan is None:
        sys.exit(f"no plan in {state}")
    if plan.slot is not None:
        prepare_node(state, Slot(plan.slot))
    Supervisor(state, plan.commands, plan.environment).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
