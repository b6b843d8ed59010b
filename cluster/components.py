"""Command line and configuration of each daemon, with the reason of every choice that is not a default."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .slots import Slot

API_PORT = 6443
NODE_NAME = "node"
PAUSE_IMAGE = "localhost/pause:local"
DNS_IMAGE = "localhost/coredns:local"

Commands = dict[str, list[str]]  # name of the daemon: its command line


def control_plane_commands(state: Path, programs: Path, address: str, port: int, slot: Slot, *, controllers: bool) -> Commands:
    """Return etcd and the API server, and the controller manager if asked for."""
    keys = state / "credentials"
    # etcd on unix sockets: no port can be taken by somebody else, and several clusters run side by side.
    client, peer = f"unix://{state}/etcd.sock", f"unix://{state}/etcd-peer.sock"
    # A loopback address may not become the endpoint of the `kubernetes` service; without pods nobody needs that one.
    endpoint = "--endpoint-reconciler-type=none" if address.startswith("127.") else f"--advertise-address={address}"
    commands = {
        "etcd": [
            f"{programs}/etcd",
            f"--data-dir={state}/etcd",
            "--name=default",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # the data dies with the cluster; fsync only costs time
            "--log-level=warn",
        ],
        "kube-apiserver": [
            f"{programs}/kube-apiserver",
            f"--etcd-servers={client}",
            f"--bind-address={address}",
            f"--secure-port={port}",
            f"--tls-cert-file={keys}/apiserver.crt",
            f"--tls-private-key-file={keys}/apiserver.key",
            f"--client-ca-file={keys}/ca.crt",
            f"--token-auth-file={keys}/tokens.csv",
            f"--kubelet-client-certificate={keys}/kubelet-client.crt",
            f"--kubelet-client-key={keys}/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",  # the node's name resolves nowhere: logs and exec would fail
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys}/service-account.key",
            f"--service-account-signing-key-file={keys}/service-account.key",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--service-cluster-ip-range={slot.service_cidr}",
            endpoint,
        ],
    }
    if controllers:
        commands["kube-controller-manager"] = [
            f"{programs}/kube-controller-manager",
            f"--kubeconfig={keys}/system:kube-controller-manager.kubeconfig",
            f"--root-ca-file={keys}/ca.crt",
            f"--service-account-private-key-file={keys}/service-account.key",
            "--use-service-account-credentials",  # each controller with its own RBAC rights, as in a real cluster
            "--kube-api-qps=500",  # with the default (20) it needs 5 s only to start
            "--kube-api-burst=1000",
            "--leader-elect=false",  # there is one of it
            "--secure-port=0",  # and nobody scrapes it
        ]
    return commands


def node_commands(state: Path, programs: Path, slot: Slot, *, network_policy: bool) -> Commands:
    """Return scheduler, container runtime, kubelet, kube-proxy and, if wanted, the enforcer of NetworkPolicy."""
    keys = state / "credentials"
    commands = {
        "kube-scheduler": [
            f"{programs}/kube-scheduler",
            f"--kubeconfig={keys}/system:kube-scheduler.kubeconfig",
            "--leader-elect=false",
            "--secure-port=0",
        ],
        "containerd": [f"{programs}/containerd", f"--config={state}/containerd.toml"],
        "kubelet": [
            f"{programs}/kubelet",
            f"--config={state}/kubelet.json",
            f"--kubeconfig={keys}/system:node:{NODE_NAME}.kubeconfig",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={slot.node_ip}",
            "--root-dir=/var/lib/kubelet",
        ],
        "kube-proxy": [f"{programs}/kube-proxy", f"--config={state}/kube-proxy.json"],
    }
    if network_policy:
        commands["kube-network-policies"] = [
            f"{programs}/kube-network-policies",
            f"--hostname-override={NODE_NAME}",
            "--metrics-bind-address=127.0.0.1:9080",
            "--netfilter-bug-1766-fix=false",  # works around kernels before 6.12
        ]
    return commands


def kubelet_configuration(state: Path, slot: Slot) -> dict[str, Any]:
    """Return the kubelet's configuration file."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{state}/credentials/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [slot.dns_ip],
        "clusterDomain": "cluster.local",
        "resolvConf": "",  # pods must not inherit the host's name servers, which they cannot reach
        "failCgroupV1": False,  # the default since 1.35 is to refuse version 1
        "cgroupDriver": "cgroupfs",  # no systemd in here
        "cgroupRoot": f"/{slot.cgroup}",  # one folder that `down` can remove
        "enforceNodeAllocatable": [],  # the node shares the machine with the host: do not fence it
        "failSwapOn": False,
        # Never evict or collect images because the developer's disk is full: local images could not be pulled again.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": False,  # kube-proxy uses nftables
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",  # the default, below /usr, would be created on the host
        "serializeImagePulls": False,
        # syncFrequency stays at its default (1 m): shortening it would hide an operator that fails to hurry a changed ConfigMap.
    }


def proxy_configuration(state: Path, slot: Slot) -> dict[str, Any]:
    """Return kube-proxy's configuration file."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{state}/credentials/system:kube-proxy.kubeconfig"},
        "mode": "nftables",
        "clusterCIDR": slot.pod_cidr,
        "hostnameOverride": NODE_NAME,
        "conntrack": {"maxPerCore": 0},  # nf_conntrack_max cannot be set in a network namespace; kube-proxy would exit
        "nftables": {"minSyncPeriod": "100ms"},  # default 1 s; a test waits for each change of endpoints
    }


def cni_configuration(slot: Slot) -> dict[str, Any]:
    """Return the pod network: ptp, not bridge.

    On a bridge the answer of a pod to its neighbour skips the node's netfilter hooks, so that it would come back with the wrong
    source address unless br_netfilter is on. Routed, services and NetworkPolicy just work.
    """
    ipam = {
        "type": "host-local",
        "dataDir": "/var/lib/cni/networks",
        "ranges": [[{"subnet": slot.pod_cidr}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": False, "ipam": ipam}]}


def containerd_configuration(state: Path) -> str:
    """Return containerd's configuration file."""
    return f"""
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]  # would create /opt/containerd on the host

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true  # without CAP_SYS_RESOURCE nobody may lower it, and then no pod starts

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "{state}/cni"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def write_node_configuration(state: Path, slot: Slot) -> None:
    """Write the configuration files that the daemons of a node read."""
    (state / "cni").mkdir()
    (state / "cni" / "10-pods.conflist").write_text(json.dumps(cni_configuration(slot)))
    (state / "kubelet.json").write_text(json.dumps(kubelet_configuration(state, slot), indent=1))
    (state / "kube-proxy.json").write_text(json.dumps(proxy_configuration(state, slot), indent=1))
    (state / "containerd.toml").write_text(containerd_configuration(state))


def server_names(slot: Slot, addresses: Sequence[str] = ()) -> list[str]:
    """Return the subject alternative names of the API server's certificate."""
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    return [*(f"IP:{address}" for address in ("127.0.0.1", slot.kubernetes_ip, *addresses)), *(f"DNS:{name}" for name in names)]
