"""Commands in the pages are read as a shell would read them, and what they name is there: targets of make, values of the chart, files."""

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.helm import CHART, helm

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "docs/runbooks", "examples/wordnet", "examples/wordnet/data", "cluster", "charts/vectorindex", ".")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
VALUES: dict[str, Any] = yaml.safe_load((ROOT / "charts" / "vectorindex" / "values.yaml").read_text())
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
OPEN = {"labels", "annotations", "matchLabels", "thresholds", "alertLabels", "for"}  # whose keys are the user's


def read_commands(page: Path) -> str:
    """Return all that a page has in blocks for a shell; `...` stands for what the reader puts in."""
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return "".join(block for _, block in blocks).replace("\\\n", " ")


def test_there_are_commands() -> None:
    assert sum(bool(read_commands(page)) for page in PAGES) > 15


def test_a_shell_can_read_every_command() -> None:
    for page in PAGES:
        done = subprocess.run(["bash", "-n"], input=read_commands(page), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), page.name


def test_every_target_of_make_that_is_named_exists() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for words in re.findall(r"(?:^|`)make ([a-z][a-z -]*[a-z])(?=[^a-z-])", text, re.MULTILINE):
            assert set(words.split()) <= TARGETS, f"{page.name}: make {words}"


def has_value(path: list[str], values: Any) -> bool:
    """Tell whether the chart has a value of this name."""
    if not path or not isinstance(values, dict):
        return not path
    return path[0] in values and (path[0] in OPEN or has_value(path[1:], values[path[0]]))


def test_every_value_that_is_set_is_one_of_the_chart() -> None:
    seen = 0
    for page in PAGES:
        for pairs in re.findall(r"--set(?:-json|-string|-file)?[ =]'?([\w.]+)=", read_commands(page)):
            seen += 1
            assert has_value(pairs.split("."), VALUES), f"{page.name}: {pairs}"
    assert seen > 10


def test_files_of_the_repository_that_commands_name_are_there() -> None:
    for page in PAGES:
        for name in re.findall(r"(?<![\w/.-])((?:gitops|crds|examples|charts|tests|indexer|operator|cli)/[\w/.-]+)", read_commands(page)):
            assert (ROOT / name.rstrip(".")).exists(), f"{page.name}: {name}"


def test_values_that_are_shown_are_accepted_by_the_chart(tmp_path: Path) -> None:
    file, seen = tmp_path / "values.yaml", 0
    for page in PAGES:
        for block in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            shown = yaml.safe_load(block) if block.partition(":")[0] in VALUES else None
            if not isinstance(shown, dict):
                continue
            seen += 1
            file.write_text(block)
            result = helm("template", "vectorindex", str(CHART), "--values", str(file))
            assert result.returncode == 0, f"{page.name}: {result.stderr}"
    assert seen >= 2


def find_paths(expression: str) -> list[str]:
    """Return the fields that a jsonpath names; those within a range are its items'."""
    found, around = [], ""
    for begins, path in re.findall(r"\{(range |end)?((?:\.(?:[\w\[\]*]|\\\.|[-/])+)*)\}", expression):
        if path:
            found.append(around + path)
        around = path if begins == "range " else "" if begins == "end" else around
    return found


def has_field(path: str, schema: dict[str, Any]) -> bool:
    """Tell whether the definition has such a field."""
    for name in re.sub(r"\[[\d*]+\]", "", path).strip(".").split("."):
        schema = schema.get("items", schema)
        if name not in schema.get("properties", {}):
            return schema.get("type") == "object" and "properties" not in schema
        schema = schema["properties"][name]
    return True


def test_every_field_that_a_jsonpath_names_is_one_of_the_definition() -> None:
    (version,) = yaml.safe_load((ROOT / "crds" / "vectorindexes.yaml").read_text())["spec"]["versions"]
    seen = 0
    for page in PAGES:
        for expression in re.findall(r"vidx[^\n]*jsonpath=(?:'([^'\n]+)')", page.read_text(encoding="utf-8")):
            for path in find_paths(expression):
                seen += 1
                known = path.startswith(".metadata.") or has_field(path, version["schema"]["openAPIV3Schema"])
                assert known, f"{page.name}: {path}"
    assert seen > 15
