"""No metric exists that nobody sets: each call of `Metrics` is made somewhere in the indexer."""

import inspect
import re
from pathlib import Path

from vectorindex_indexer import metrics as module
from vectorindex_indexer.metrics import Metrics


def test_every_recording_method_is_called() -> None:
    folder = Path(inspect.getfile(module)).parent
    code = "\n".join(path.read_text() for path in folder.glob("*.py") if path.name != "metrics.py")
    methods = [name for name, _ in inspect.getmembers(Metrics, inspect.isfunction) if not name.startswith("_")]

    assert [name for name in methods if not re.search(rf"metrics\.{name}\b", code)] == []


def test_every_declared_metric_is_written_by_a_method() -> None:
    source = inspect.getsource(Metrics)
    attributes = set(re.findall(r"self\.(_\w+) = self\._(?:gauge|counter|histogram)\(", source))

    assert attributes
    assert [name for name in attributes if len(re.findall(rf"self\.{name}\b", source)) < 2] == []
