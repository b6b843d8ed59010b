"""Which addresses and names a node has: each running one holds a slot of its own, so that several don't disturb each other.

Links, routes and control groups belong to the machine, not to a user's cache, hence so does the register of slots.
"""

import ipaddress
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import ClusterError
from .process import exclusive, stat_fields

COUNT = 16
REGISTER = Path("/run/vectorindex-cluster")

Network = ipaddress.IPv4Network


@dataclass(frozen=True)
class Slot:
    """The addresses and names of one node. Only the link exists on the host; pods and services are routed through it."""

    number: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < COUNT:
            raise ValueError(f"expected a slot from 0 to {COUNT - 1}, got {self.number}")

    @property
    def link_network(self) -> Network:
        """The four addresses of the cable between host and node."""
        return Network((int(ipaddress.IPv4Address("10.201.0.0")) + 4 * self.number, 30))

    @property
    def host_ip(self) -> str:
        """What pods call to reach a server on the host."""
        return str(self.link_network[1])

    @property
    def node_ip(self) -> str:
        """Where the API server listens."""
        return str(self.link_network[2])

    @property
    def pod_cidr(self) -> str:
        """The addresses of pods."""
        return f"10.202.{self.number}.0/24"

    @property
    def service_cidr(self) -> str:
        """The addresses of services."""
        return f"10.203.{16 * self.number}.0/20"

    @property
    def kubernetes_ip(self) -> str:
        """The service of the API server: the first address of its range, by rule."""
        return str(Network(self.service_cidr)[1])

    @property
    def dns_ip(self) -> str:
        """The service of cluster DNS, which the kubelet writes into every pod."""
        return str(Network(self.service_cidr)[10])

    @property
    def host_link(self) -> str:
        """The host's end of the cable."""
        return f"vx-host-{self.number}"

    @property
    def cgroup(self) -> str:
        """The control group below which all pods live."""
        return f"vectorindex-cluster-{self.number}"

    def collides_with(self, routes: Iterable[Network]) -> bool:
        """Tell whether one of the host's routes already leads into our ranges. A wider route (a VPN's 10.0.0.0/8) does no harm."""
        own = (self.link_network, Network(self.pod_cidr), Network(self.service_cidr))
        return any(route.subnet_of(network) for route in routes for network in own)


def parse_routes(text: str) -> list[Network]:
    """Return the destinations in the output of `ip -json route show table all`, default routes left out."""
    found = []
    for route in json.loads(text or "[]"):
        destination = route.get("dst", "default")
        try:
            network = Network(destination)
        except ValueError:
            continue  # default, or IPv6
        if network.prefixlen:
            found.append(network)
    return found


@dataclass(frozen=True)
class Starter:
    """The process that claims a slot, told from a later one with the same id by the time of its start."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Starter":
        """Return the identity of a running process."""
        fields = stat_fields(pid)
        return cls(pid, fields[19] if fields else "")

    def is_alive(self) -> bool:
        """Tell whether this very process still runs."""
        return bool(self.started) and Starter.of(self.pid) == self


class Register:
    """The slots in use on this machine, in a file that one process at a time changes."""

    def __init__(self, folder: Path = REGISTER) -> None:
        self._folder = folder
        self._file = folder / "slots.json"

    def claim(
        self,
        owner: Path,
        starter: Starter,
        is_running: Callable[[Path], bool],
        is_usable: Callable[[Slot], bool],
        clean: Callable[[Slot], None],
    ) -> Slot:
        """Take the first free slot for the cluster whose state folder is `owner`.

        A slot is free when neither its cluster runs nor the process that was starting it; what such a one left is cleaned first.
        """
        with self._locked():
            entries = self._read()
            for number in range(COUNT):
                slot = Slot(number)
                entry = entries.get(str(number))
                if entry:
                    if entry["owner"] != str(owner) and (is_running(Path(entry["owner"])) or Starter(**entry["starter"]).is_alive()):
                        continue
                    try:
                        clean(slot)
                    except ClusterError:
                        continue  # something of a dead cluster still ends; other slots are free
                    del entries[str(number)]
                if is_usable(slot):
                    entries[str(number)] = {"owner": str(owner), "starter": asdict(starter)}
                    self._write(entries)
                    return slot
            self._write(entries)
        raise ClusterError(f"all {COUNT} address ranges are in use; end a cluster with: python3 -m cluster down --name NAME")

    def release(self, owner: Path, clean: Callable[[Slot], None]) -> None:
        """Clean and free the slots of a cluster; harmless when it holds none."""
        if not any(entry["owner"] == str(owner) for entry in self._read().values()):
            return  # a control plane holds none, and may not even be allowed to lock
        with self._locked():
            entries = self._read()
            for number in [number for number, entry in entries.items() if entry["owner"] == str(owner)]:
                clean(Slot(int(number)))
                del entries[number]
            self._write(entries)

    def _locked(self) -> Any:
        return exclusive(self._folder / "lock", "another cluster to choose its addresses")

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            entries: dict[str, dict[str, Any]] = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        return entries

    def _write(self, entries: dict[str, dict[str, Any]]) -> None:
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(entries, indent=1))
        partial.rename(self._file)
