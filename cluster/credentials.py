"""Certificates, tokens and kubeconfigs of a cluster: made new for every start, never leaving its state folder."""

import base64
import json
import secrets
from pathlib import Path

from .process import run

# Static tokens instead of a client certificate for each component: one file, no key pairs, and RBAC sees the same users.
GROUPS = {  # user: group
    "admin": "system:masters",
    "system:kube-controller-manager": "system:authenticated",
    "system:kube-scheduler": "system:authenticated",
    "system:kube-proxy": "system:authenticated",
    "system:node:node": "system:nodes",
    "kube-network-policies": "system:masters",
}
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30")


def write_credentials(state: Path, server: str, names: list[str]) -> None:
    """Write keys, the token file and a kubeconfig for each user. `names`: under which the API server is reached."""
    folder = state / "credentials"
    folder.mkdir(mode=0o700)
    issued = ("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-addext", "basicConstraints=CA:FALSE")
    new = ("openssl", "req", "-x509", *_KEY)
    run(*new, "-subj", "/CN=local-cluster", "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
    server_files = ("-keyout", folder / "apiserver.key", "-out", folder / "apiserver.crt")
    run(*new, *issued, "-subj", "/CN=kube-apiserver", "-addext", f"subjectAltName={','.join(names)}", *server_files)
    # How the API server shows itself to the kubelet for logs, exec and port-forward; system:masters passes the kubelet's check.
    subject = ("-subj", "/O=system:masters/CN=apiserver-kubelet-client", "-addext", "extendedKeyUsage=clientAuth")
    run(*new, *issued, *subject, "-keyout", folder / "kubelet-client.key", "-out", folder / "kubelet-client.crt")
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "service-account.key")

    authority = (folder / "ca.crt").read_bytes()
    tokens = {user: secrets.token_hex(16) for user in GROUPS}
    (folder / "tokens.csv").write_text("".join(f'{token},{user},{user},"{GROUPS[user]}"\n' for user, token in tokens.items()))
    for user, token in tokens.items():
        (folder / f"{user}.token").write_text(token)
        (folder / f"{user}.kubeconfig").write_text(build_kubeconfig(server, authority, token))
    admin = state / "admin.kubeconfig"
    admin.touch(mode=0o600)
    admin.write_text(build_kubeconfig(server, authority, tokens["admin"]))


def build_kubeconfig(server: str, authority: bytes, token: str) -> str:
    """Return a kubeconfig as JSON, which every client reads as YAML."""
    data = base64.b64encode(authority).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "local",
        "clusters": [{"name": "local", "cluster": {"server": server, "certificate-authority-data": data}}],
        "users": [{"name": "local", "user": {"token": token}}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}],
    }
    return json.dumps(document, indent=1)
