"""Write container image archives without any tool: an OCI image is a tar of JSON files and layers that name each other by hash."""

import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import ClusterError

_CONFIG, _MANIFEST, _LAYER = (f"application/vnd.oci.image.{kind}" for kind in ("config.v1+json", "manifest.v1+json", "layer.v1.tar"))
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """Return this machine's architecture in the words of image configurations."""
    try:
        return _ARCHITECTURES[platform.machine()]
    except KeyError as error:
        raise ClusterError(f"images are built for x86_64 and aarch64 only, this machine is {platform.machine()}") from error


def write_layer(layer: Path, files: Mapping[str, Path]) -> None:
    """Write a layer that holds nothing but the given files; the same files make the same layer."""
    with tarfile.open(layer, "w") as output:
        for target, source in files.items():
            member = output.gettarinfo(source.resolve(), target.lstrip("/"))
            member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
            with source.open("rb") as content:
                output.addfile(member, content)


def write_archive(target: Path, name: str, layer: Path, config: Mapping[str, Any]) -> None:
    """Write an OCI archive of an image with one layer, an uncompressed tar."""
    with layer.open("rb") as file:
        layer_digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    blobs: dict[str, bytes] = {}

    def add_blob(media_type: str, content: Mapping[str, Any]) -> dict[str, Any]:
        data = json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    config_entry = add_blob(
        _CONFIG,
        {
            "architecture": architecture(),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
            "history": [{"created_by": "vectorindex"}],  # buildah wants one entry for each layer
        },
    )
    layer_entry = {"mediaType": _LAYER, "digest": layer_digest, "size": layer.stat().st_size}
    document = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config_entry, "layers": [layer_entry]}
    manifest = add_blob(_MANIFEST, document)
    manifest["annotations"] = {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
    index = {"schemaVersion": 2, "manifests": [manifest]}

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    with tarfile.open(partial, "w") as output:
        for path, data in {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode(), **blobs}.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            output.addfile(member, io.BytesIO(data))
        output.add(layer, "blobs/sha256/" + layer_digest.removeprefix("sha256:"))
    partial.rename(target)


def write_program_image(target: Path, name: str, files: Mapping[str, Path], entrypoint: list[str]) -> None:
    """Write an image that is nothing but static programs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    layer = target.with_name(f".{target.name}.layer.{os.getpid()}")
    try:
        write_layer(layer, files)
        write_archive(target, name, layer, {"Entrypoint": entrypoint})
    finally:
        layer.unlink(missing_ok=True)
