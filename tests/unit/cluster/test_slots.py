"""Slots: addresses of their own for each node, and a register that survives crashes."""

import itertools
import os
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.slots import COUNT, Register, Slot, Starter, parse_routes

ALIVE = Starter.of(os.getpid())
DEAD = Starter(ALIVE.pid, "1")  # the same process id, started at another time


def claim(register: Register, owner: str, starter: Starter = DEAD, running: tuple[str, ...] = (), cleaned: list[Slot] | None = None) -> int:
    def clean(slot: Slot) -> None:
        if cleaned is not None:
            cleaned.append(slot)

    return register.claim(Path(owner), starter, lambda state: str(state) in running, lambda _slot: True, clean).number


def networks(slot: Slot) -> list[IPv4Network]:
    return [slot.link_network, IPv4Network(slot.pod_cidr), IPv4Network(slot.service_cidr)]


def test_no_two_slots_share_an_address_or_a_name() -> None:
    everything = [network for number in range(COUNT) for network in networks(Slot(number))]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(everything, 2))
    assert len({Slot(number).host_link for number in range(COUNT)} | {Slot(number).cgroup for number in range(COUNT)}) == 2 * COUNT


def test_a_link_name_fits_the_kernel_and_services_lie_in_their_range() -> None:
    last = Slot(COUNT - 1)
    assert len(last.host_link) <= 15
    assert (last.host_ip, last.node_ip) == ("10.201.0.61", "10.201.0.62")
    assert (last.kubernetes_ip, last.dns_ip) == ("10.203.240.1", "10.203.240.10")


@pytest.mark.parametrize("number", [-1, COUNT])
def test_there_is_no_slot_outside_the_ranges(number: int) -> None:
    with pytest.raises(ValueError, match="expected a slot"):
        Slot(number)


def test_running_clusters_keep_their_slots(tmp_path: Path) -> None:
    register = Register(tmp_path)
    assert claim(register, "/run/demo") == 0
    assert claim(register, "/run/test", running=("/run/demo",)) == 1


def test_a_cluster_that_is_just_starting_keeps_its_slot(tmp_path: Path) -> None:
    register = Register(tmp_path)
    assert claim(register, "/run/demo", ALIVE) == 0
    assert claim(register, "/run/test") == 1


def test_the_slot_of_a_dead_cluster_is_cleaned_and_given_away(tmp_path: Path) -> None:
    register, cleaned = Register(tmp_path), list[Slot]()
    claim(register, "/run/demo")
    assert claim(register, "/run/test", cleaned=cleaned) == 0
    assert cleaned == [Slot(0)]


def test_a_released_slot_is_cleaned_once(tmp_path: Path) -> None:
    register, cleaned = Register(tmp_path), list[Slot]()
    claim(register, "/run/demo", ALIVE)
    for _ in range(2):
        register.release(Path("/run/demo"), cleaned.append)
    assert cleaned == [Slot(0)]
    assert claim(register, "/run/test") == 0


def test_addresses_that_the_host_routes_elsewhere_are_left_alone(tmp_path: Path) -> None:
    routes = parse_routes('[{"dst": "default"}, {"dst": "10.0.0.0/8"}, {"dst": "10.202.0.128/25"}, {"dst": "fe80::/64"}]')
    found = Register(tmp_path).claim(Path("/run/a"), ALIVE, lambda _: False, lambda slot: not slot.collides_with(routes), lambda _: None)
    assert found == Slot(1)


def test_no_free_slot_is_told_with_the_way_out(tmp_path: Path) -> None:
    register = Register(tmp_path)
    for number in range(COUNT):
        claim(register, f"/run/{number}", ALIVE)
    with pytest.raises(ClusterError, match="down --name"):
        claim(register, "/run/one-too-many")


def test_a_damaged_register_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "slots.json").write_text("{")
    assert claim(Register(tmp_path), "/run/demo") == 0
