"""How the pages become a site (`make site`). Their folder is the repository, so links are the same here and where the code is read."""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

project = "VectorIndex"
language = "en"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "charts/*/README.md", "cluster/README.md", "examples/**.md", "gitops/**.md"]
exclude_patterns = [".venv", ".git", ".cache", "site", "dist"]

nitpicky = True
smartquotes = False  # texts are shown as they are written
myst_heading_anchors = 4  # anchors as GitHub makes them, of titles down to this level
highlight_language = "text"  # of blocks that name none: what commands print
suppress_warnings = ["misc.highlighting_failure"]  # SQL with variables of psql is none of the highlighter's

html_theme = "furo"
html_title = project
html_extra_path = ["root"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

LINK = re.compile(r"^- \[([^]]+)\]\(([^)]+)\.md\)", re.MULTILINE)
RUNBOOKS = "docs/alerts"


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Make the navigation of what the front page lists: each of its sections, and at the end the pages that it leaves out."""
    if page == RUNBOOKS:
        source[0] += render_tree("", sorted(f"/{found}" for found in app.env.found_docs if found.startswith("docs/runbooks/")))
    if page == root_doc:
        sections = re.split(r"^## ", source[0], flags=re.MULTILINE)[1:]
        listed = {normalise(target) for section in sections for _, target in LINK.findall(section)}
        rest = [found for found in app.env.found_docs - listed - {root_doc} if not found.startswith("docs/runbooks/")]
        for section in sections:
            links = [f"{title} </{normalise(target)}>" for title, target in LINK.findall(section)]
            source[0] += render_tree(section.partition("\n")[0], links)
        source[0] += render_tree("More", sorted(f"/{found}" for found in rest))


def normalise(target: str) -> str:
    """Return the page that a link of the front page leads to."""
    return target.removeprefix("../") if target.startswith("../") else f"docs/{target}"


def render_tree(caption: str, links: list[str]) -> str:
    """Return what Sphinx makes a part of its navigation of."""
    return "\n\n```{toctree}\n:hidden:\n" + f":caption: {caption}\n" * bool(caption) + "\n" + "\n".join(links) + "\n```\n" if links else ""


def list_links(app: Sphinx, failed: Exception | None) -> None:
    """Write the addresses that lead out of the site, beside it: nobody fetches them here."""
    if failed is None:
        pages = (app.env.get_doctree(page) for page in app.env.found_docs)
        addresses = {str(link.get("refuri", "")) for page in pages for link in page.findall(nodes.reference)}
        found = sorted(address for address in addresses if "://" in address)
        (Path(app.outdir) / "external-links.txt").write_text("".join(f"{address}\n" for address in found), encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Let Sphinx call the above."""
    app.connect("source-read", add_navigation)
    app.connect("build-finished", list_links)
