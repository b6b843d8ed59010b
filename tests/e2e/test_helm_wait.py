"""A release that holds a VectorIndex is deployed once the index serves, and has failed while it does not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from examples.wordnet.steps.kubernetes import Manifest
from examples.wordnet.steps.report import StepError
from examples.wordnet.steps.world import SEARCH, World, conditions, delete_index
from tests.support import scenes

RELEASED = "released"


@pytest.fixture
def chart(scene: World, tmp_path: Path) -> Iterator[Path]:
    """A chart without templates yet; its release is uninstalled afterwards."""
    scenes.make_table(scene, RELEASED)
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": RELEASED, "version": "0.1.0"}))
    (tmp_path / "templates").mkdir()
    yield tmp_path
    scene.kubernetes.helm("uninstall", RELEASED, f"--namespace={SEARCH}", "--ignore-not-found")
    delete_index(scene, RELEASED)


def upgrade(scene: World, chart: Path, manifest: Manifest, timeout: str) -> None:
    (chart / "templates" / "index.yaml").write_text(yaml.safe_dump(manifest))
    scene.kubernetes.helm("upgrade", "--install", RELEASED, str(chart), f"--namespace={SEARCH}", "--wait", f"--timeout={timeout}")


def test_helm_waits_until_the_index_of_a_chart_is_ready(scene: World, chart: Path) -> None:
    wrong = scenes.small_index(RELEASED, replicas=1)
    wrong["spec"]["source"]["columns"]["vector"] = "no_such_column"
    with pytest.raises(StepError):
        upgrade(scene, chart, wrong, "5s")
    assert conditions(scene, RELEASED)["Ready"]["status"] != "True"

    upgrade(scene, chart, scenes.small_index(RELEASED, replicas=1), "90s")
    found = scene.kubernetes.get("vidx", RELEASED, f"--namespace={SEARCH}")
    assert conditions(scene, RELEASED)["Ready"]["status"] == "True"
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
