"""Command lines of the daemons and of the package itself, and the sentences for what is missing."""

import io
import json
import re
import string
import tarfile
from pathlib import Path

import pytest
import yaml

from cluster import __main__ as command_line
from cluster import cgroups, packages, requirements, tools
from cluster.archive import write_program_image
from cluster.components import control_plane_commands, kubelet_configuration, node_commands, server_names
from cluster.credentials import build_kubeconfig
from cluster.errors import ClusterError
from cluster.lifecycle import VOLUMES, Cluster, build_volumes, free_port
from cluster.paths import HERE
from cluster.plan import Plan
from cluster.slots import Slot

STATE, PROGRAMS = Path("/state"), Path("/bin-x")


def test_two_nodes_share_no_address_on_their_command_lines() -> None:
    def addresses(slot: Slot) -> set[str]:
        commands = control_plane_commands(STATE, PROGRAMS, slot.node_ip, 6443, slot, controllers=True)
        commands |= node_commands(STATE, PROGRAMS, slot, network_policy=True)
        text = json.dumps([commands, kubelet_configuration(STATE, slot), server_names(slot, [slot.node_ip])])
        return set(re.findall(r"10\.20[123]\.\d+\.\d+", text))

    assert addresses(Slot(0))
    assert not addresses(Slot(0)) & addresses(Slot(1))


def test_a_control_plane_alone_stays_on_loopback_and_publishes_no_endpoint() -> None:
    commands = control_plane_commands(STATE, PROGRAMS, "127.0.0.1", 20001, Slot(0), controllers=False)
    assert set(commands) == {"etcd", "kube-apiserver"}
    assert {"--bind-address=127.0.0.1", "--endpoint-reconciler-type=none"} <= set(commands["kube-apiserver"])


def test_network_policy_can_be_left_out() -> None:
    assert "kube-network-policies" in node_commands(STATE, PROGRAMS, Slot(0), network_policy=True)
    assert "kube-network-policies" not in node_commands(STATE, PROGRAMS, Slot(0), network_policy=False)


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = Plan(3, "https://10.201.0.14:6443", {"etcd": ["etcd"]}, {"PATH": "/bin"})
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan
    assert Plan.read(tmp_path / "nothing") is None


def test_cluster_dns_has_the_address_that_pods_are_told() -> None:
    text = string.Template((HERE / "manifests" / "dns.yaml").read_text()).substitute(DNS_IP=Slot(2).dns_ip)
    [service] = [item for item in yaml.safe_load_all(text) if item["kind"] == "Service"]
    assert [service["spec"]["clusterIP"]] == kubelet_configuration(STATE, Slot(2))["clusterDNS"]


def test_volumes_are_local_folders_of_the_cluster(tmp_path: Path) -> None:
    volumes = build_volumes(tmp_path)
    assert len({volume["spec"]["local"]["path"] for volume in volumes}) == VOLUMES
    assert all(Path(volume["spec"]["local"]["path"]).is_dir() for volume in volumes)


def test_a_kubeconfig_carries_its_authority_and_token() -> None:
    config = yaml.safe_load(build_kubeconfig("https://127.0.0.1:1", b"PEM", "secret"))
    assert config["clusters"][0]["cluster"] == {"server": "https://127.0.0.1:1", "certificate-authority-data": "UEVN"}
    assert config["users"][0]["user"] == {"token": "secret"}


def test_a_free_port_is_none_that_outgoing_connections_get() -> None:
    assert 20000 <= free_port() < 32000


@pytest.mark.parametrize("name", ["", "Demo", "../demo", "a b", "-x", "x" * 32])
def test_a_strange_cluster_name_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="a cluster's name"):
        Cluster(name)


def test_packages_are_named_with_the_command_that_installs_them() -> None:
    sentence = packages.missing_sentence(["runc", "buildah"])
    assert sentence.endswith("apt-get update && apt-get install --yes --no-install-recommends runc buildah")
    assert "\n" not in sentence


def test_only_absent_packages_are_missing() -> None:
    table = (packages.Package("here", lambda: True, ""), packages.Package("gone", lambda: False, ""))
    assert packages.missing_packages(table) == ["gone"]
    assert set(packages.CONTROL_PLANE_NAMES) <= {package.name for package in packages.PACKAGES}


def test_without_apt_the_promtool_of_the_machine_is_used_and_else_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"promtool can't be fetched here \(.+\); put one of Prometheus 2.42 or newer on the PATH"):
        tools.fetch_promtool()
    own = tmp_path / "promtool"
    own.touch(mode=0o755)
    assert tools.fetch_promtool() == own


def test_a_package_that_is_not_the_pinned_one_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def download(name: str, folder: Path) -> Path:
        file = folder / "prometheus.deb"
        file.write_text(name)
        return file

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("cluster.tools._download_package", download)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(ClusterError, match=r"prometheus\.deb is not the file that is pinned"):
        tools.fetch_programs(tools.PROMETHEUS)


def test_without_root_the_node_says_so_and_the_control_plane_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert requirements.missing() == "the local Kubernetes node cannot run here: it needs root, for namespaces, mounts and control groups"
    assert requirements.missing_for_control_plane() is None


def test_elsewhere_than_on_linux_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert requirements.missing_for_control_plane() == "the local Kubernetes control plane cannot run here: it needs Linux, this is Darwin"
    assert (requirements.missing() or "").startswith("the local Kubernetes node cannot run here: it needs Linux")


def test_control_groups_of_version_1_are_made_in_every_tree_and_removed(tmp_path: Path) -> None:
    for controller in ("cpu", "memory", "pids", "cpuset"):
        (tmp_path / controller).mkdir()
        (tmp_path / controller / "cgroup.procs").write_text("")
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-1")
    assert cgroups.obstacle(tmp_path) is None
    cgroups.make_cgroup("x", tmp_path)
    assert (tmp_path / "cpuset" / "x" / "cpuset.cpus").read_text() == "0-1"
    (tmp_path / "cpuset" / "x" / "cpuset.cpus").unlink()  # the kernel's own files vanish with the folder
    cgroups.remove_cgroup("x", tmp_path)
    assert not list(tmp_path.glob("*/x"))


def test_control_groups_of_version_2_pass_every_controller_down(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    (tmp_path / "cgroup.subtree_control").write_text("")
    assert cgroups.obstacle(tmp_path) is None
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "cgroup.controllers").write_text("cpu")
    cgroups.make_cgroup("x", tmp_path)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+pids"  # the last of three writes
    assert (tmp_path / "x" / "cgroup.subtree_control").read_text() == "+cpu"


def test_a_container_that_cannot_pass_controllers_down_is_an_obstacle(tmp_path: Path) -> None:
    for name, text in (("controllers", "cpu memory pids"), ("subtree_control", ""), ("type", "domain"), ("procs", "1")):
        (tmp_path / f"cgroup.{name}").write_text(text)
    assert "holds processes" in (cgroups.obstacle(tmp_path) or "")
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    assert cgroups.obstacle(tmp_path) == "control groups lack the controllers pids"


def test_an_image_of_one_program_names_its_parts_by_hash(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    for name in ("one.tar", "two.tar"):
        write_program_image(tmp_path / name, "localhost/x:local", {"/program": program}, ["/program"])
    with tarfile.open(tmp_path / "one.tar") as archive:
        [entry] = json.load(archive.extractfile("index.json") or io.BytesIO())["manifests"]
        blob = f"blobs/sha256/{entry['digest'].removeprefix('sha256:')}"
        [layer] = json.load(archive.extractfile(blob) or io.BytesIO())["layers"]
        assert f"blobs/sha256/{layer['digest'].removeprefix('sha256:')}" in archive.getnames()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.tar", "program", "two.tar"]


def test_an_error_is_a_sentence_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        command_line.main(["kubeconfig", "--name", "nobody"])
    assert ended.value.code == "error: no cluster nobody runs; start it with: python3 -m cluster up --name nobody"
    with pytest.raises(SystemExit) as status:
        command_line.main(["status", "--name", "nobody"])
    assert status.value.code == 1
    assert json.loads(capsys.readouterr().out) == {"name": "nobody", "running": False}
