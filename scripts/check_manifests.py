"""Let checkov look at all manifests that this repository ships or its operator makes; `make security` does it, and `make lint` with it.

What it finds is an error, unless charts/checkov-exceptions.yaml says why it may stay. An exception that meets nothing is an error, too.
checkov lives in a virtual environment of its own inside the cache, and looks at files only: it needs no network.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from cluster.paths import cache
from cluster.process import exclusive
from cluster.progress import say
from cluster.tools import fetch_tools
from vectorindex_operator import api, objects
from vectorindex_operator.settings import Settings, parse_settings

ROOT: Final = Path(__file__).resolve().parents[1]
CHART: Final = ROOT / "charts" / "vectorindex"
EXCEPTIONS: Final = ROOT / "charts" / "checkov-exceptions.yaml"
WORDNET: Final = ROOT / "examples" / "wordnet" / "vectorindex.yaml"
REQUIREMENTS: Final = ROOT / "requirements" / "checkov.txt"
INSTALLS: Final = {"one-namespace": ("test.index=docs",), "whole-cluster": ("clusterWide=true",)}
DOCKERFILES: Final = ("operator", "indexer")
Manifest = dict[str, Any]

# Every optional part of a VectorIndex that shows in its objects.
EVERYTHING: Final[Manifest] = {
    "replicas": 3,
    "source": {
        "postgres": {
            "host": "pg.search.svc",
            "database": "app",
            "sslMode": "VerifyFull",
            "credentialsSecretRef": {"name": "docs-reader"},
            "caSecretRef": {"name": "pg-ca", "key": "ca.crt"},
            "clientCertificateSecretRef": {"name": "docs-certificate"},
        },
        "table": {"name": "embeddings"},
        "columns": {"id": "id", "vector": "vector"},
    },
    "index": {"dimension": 8},
    "storage": {"size": "1Gi", "storageClassName": "fast"},
    "network": {"clients": [{"namespaceSelector": {"matchLabels": {"team": "search"}}}], "source": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
    "pod": {
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"operator": "Exists"}],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        "priorityClassName": "high",
    },
}


@dataclass(frozen=True)
class Finding:
    """One rule that one object breaks."""

    rule: str
    file: str
    object: str
    title: str


@dataclass(frozen=True)
class Permitted:
    """A rule that objects may break, and why. `object` is a regular expression for `file object`."""

    rule: str
    object: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        """Tell whether it is about this finding."""
        return self.rule == finding.rule and re.fullmatch(self.object, f"{finding.file} {finding.object}") is not None


def parse_exceptions(text: str) -> list[Permitted]:
    """Return the exceptions; raise ValueError for one without a reason."""
    found = [Permitted(entry["rule"], entry["object"], entry.get("reason", "").strip()) for entry in yaml.safe_load(text) or []]
    for permitted in found:
        if not permitted.reason:
            raise ValueError(f"{permitted.rule} for {permitted.object}: an exception needs a reason")
    return found


def find_problems(findings: Sequence[Finding], exceptions: Sequence[Permitted]) -> list[str]:
    """Return what has to be put right: findings that are no exception, and exceptions that are no finding."""
    bare = [finding for finding in findings if not any(permitted.covers(finding) for permitted in exceptions)]
    unused = [permitted for permitted in exceptions if not any(permitted.covers(finding) for finding in findings)]
    return [
        *(f"{finding.rule} {finding.file} {finding.object}: {finding.title}" for finding in bare),
        *(f"{permitted.rule} for {permitted.object}: nothing breaks this rule any more, so remove the exception" for permitted in unused),
    ]


def build_manifests() -> dict[str, list[Manifest]]:
    """Return what is checked: the chart's objects for each way to install it, and what the operator so installed makes of VectorIndexes."""
    rendered = {f"chart-{name}": render_chart(settings) for name, settings in INSTALLS.items()}
    settings = read_settings(rendered["chart-one-namespace"])
    specs = {path.stem: read_spec(path) for path in (WORDNET, *sorted((ROOT / "crds" / "examples").glob("*.yaml")))}
    specs["everything"] = EVERYTHING
    return rendered | {f"generated-{name}": build_generated(spec, settings) for name, spec in specs.items()}


def read_spec(path: Path) -> Manifest:
    """Return the spec of the VectorIndex in a file that may hold other objects, too."""
    (spec,) = [manifest["spec"] for manifest in yaml.safe_load_all(path.read_text()) if manifest["kind"] == "VectorIndex"]
    found: Manifest = spec
    return found


def render_chart(settings: Iterable[str]) -> list[Manifest]:
    """Return the chart's objects, but for the definition, which runs nothing."""
    options = [f"--set={setting}" for setting in (*settings, "crds.enabled=false")]
    command = [str(fetch_tools() / "helm"), "template", "vectorindex", str(CHART), "--namespace=vectorindex-system", *options]
    output = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True).stdout
    return [manifest for manifest in yaml.safe_load_all(output) if manifest]


def read_settings(manifests: Iterable[Manifest]) -> Settings:
    """Return the settings with which the chart starts the operator."""
    (deployment,) = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
    entries = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    return parse_settings({entry["name"]: entry.get("value", "from-the-pod") for entry in entries})


def build_generated(spec: Manifest, settings: Settings) -> list[Manifest]:
    """Return every object that the operator makes for this spec."""
    meta = {"name": "docs", "namespace": "search", "uid": "0", "generation": 1, "resourceVersion": "1"}
    index = api.parse_vector_index({"metadata": meta, "spec": spec})
    if index.spec is None:
        raise ValueError(f"the operator refuses the spec: {index}")
    return list(objects.build_children(index, index.spec, settings, None).manifests)


def fetch_checkov() -> Path:
    """Return checkov's program, installed with the pinned packages the first time."""
    target = cache() / f"checkov-{hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]}"
    with exclusive(cache() / "checkov.lock", "another installation of checkov to end"):
        if not (target / ".complete").exists():
            say("installing checkov into the cache, about a minute, once")
            shutil.rmtree(target, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", target], check=True)
            pip = [str(target / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
            subprocess.run([*pip, "install", "--require-hashes", "--requirement", str(REQUIREMENTS)], check=True)
            (target / ".complete").touch()
    return target / "bin" / "checkov"


def run_checkov(manifests: dict[str, list[Manifest]]) -> tuple[int, list[Finding]]:
    """Return how many rules were kept, and which were not."""
    with tempfile.TemporaryDirectory() as folder:
        for name, objects_of_it in manifests.items():
            Path(folder, f"{name}.yaml").write_text(yaml.safe_dump_all(objects_of_it))
        for name in DOCKERFILES:
            Path(folder, name).mkdir()
            shutil.copy(ROOT / name / "Dockerfile", Path(folder, name))
        options = [
            "--directory",
            folder,
            "--framework",
            "kubernetes",
            "dockerfile",
            "--output=json",
            "--skip-download",
            "--quiet",
            "--compact",
        ]
        # Without the keys of the maker's service in the environment it reports to nobody.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("BC_", "PRISMA_", "CKV_"))}
        result = subprocess.run([fetch_checkov(), *options], cwd=folder, text=True, capture_output=True, env=environment, check=False)
    try:
        reports = json.loads(result.stdout)
    except ValueError:
        raise SystemExit(f"checkov ended with {result.returncode} and no report: {result.stderr[-2000:]}") from None
    passed, findings, seen = 0, [], set()
    for report in reports if isinstance(reports, list) else [reports]:
        if report["summary"]["parsing_errors"]:
            raise SystemExit(f"checkov could not read {report['results']['parsing_errors']}")
        passed += report["summary"]["passed"]
        findings += [parse_finding(check) for check in report["results"]["failed_checks"]]
        seen.add(report["check_type"])
    if seen != {"kubernetes", "dockerfile"}:
        raise SystemExit(f"checkov reported about {sorted(seen)} only, so it did not see everything")
    return passed, findings


def parse_finding(check: dict[str, Any]) -> Finding:
    """Return what checkov says of one object and rule."""
    return Finding(check["check_id"], check["file_path"].lstrip("/"), check["resource"].lstrip("/"), check["check_name"])


def main() -> int:
    """Print what has to be put right; return 1 if anything has."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    exceptions = parse_exceptions(EXCEPTIONS.read_text())
    manifests = build_manifests()
    passed, findings = run_checkov(manifests)
    problems = find_problems(findings, exceptions)
    for problem in problems:
        print(problem)
    if problems:
        print(f"checkov: {len(problems)} to put right; what has to stay as it is goes with its reason into {EXCEPTIONS.relative_to(ROOT)}")
        return 1
    count = sum(len(part) for part in manifests.values()) + len(DOCKERFILES)
    print(f"checkov: {count} manifests keep {passed} rules; {len(findings)} findings are exceptions with a reason")
    return 0


if __name__ == "__main__":
    sys.exit(main())
