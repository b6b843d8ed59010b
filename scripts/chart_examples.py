"""Write the examples of crds/examples into Chart.yaml, where Artifact Hub looks for them; a test compares both."""

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
CHART: Final = ROOT / "charts" / "vectorindex" / "Chart.yaml"
EXAMPLES: Final = ROOT / "crds" / "examples"
START: Final = "  artifacthub.io/crdsExamples: |\n"
"""The last entry of the file."""


def render_chart_file() -> str:
    """Return the text of Chart.yaml with the examples as they are now."""
    head, start, _ = CHART.read_text(encoding="utf-8").partition(START)
    if not start:
        raise ValueError(f"{CHART.name}: expected a line {START.strip()!r}")
    return head + start + "".join(render_example(path.read_text(encoding="utf-8")) for path in sorted(EXAMPLES.glob("*.yaml")))


def render_example(text: str) -> str:
    """Return a manifest as an entry of a list, four columns in."""
    lines = text.strip().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    rest = [line for line in lines if not line.startswith("#")]
    entry = [f"- {rest[0]}", *(f"  {line}" if line else "" for line in rest[1:])]
    return "".join(f"    {line}\n" if line else "\n" for line in (*comments, *entry))


if __name__ == "__main__":
    CHART.write_text(render_chart_file(), encoding="utf-8")
    sys.stdout.write(f"wrote {CHART.relative_to(ROOT)}\n")
