"""The documents: their links lead somewhere, their code is right, and the README stays short."""

from __future__ import annotations

import ast
import doctest
import re
from collections import Counter
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *PAGES]

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)>\s]+)>?[^)]*\)")


def name(path: Path) -> str:
    """What a document is called in the output of pytest."""
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """A document without its blocks of code."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def links(path: Path) -> list[str]:
    """The targets of a document's links and images, without those that lead to the web."""
    text = re.sub(r"`[^`\n]*`", "code", prose(path))
    return [target for target in LINK.findall(text) if not re.match(r"[a-z]+:", target)]


@cache
def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    found: Counter[str] = Counter()
    result = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(path), re.MULTILINE):
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        result.add(f"{anchor}-{found[anchor]}" if found[anchor] else anchor)
        found[anchor] += 1
    return result


def broken_links(path: Path, root: Path = ROOT) -> list[str]:
    """The relative links of a document that lead nowhere, or out of the repository."""
    broken = []
    for link in links(path):
        file, _, anchor = unquote(link).partition("#")
        target = (path.parent / file).resolve() if file else path
        exists = target.is_relative_to(root.resolve()) and target.exists()
        if not exists or (anchor and (target.suffix != ".md" or anchor not in anchors(target))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    """Each relative link leads to a file of the repository, and to a heading of it if it names one."""
    assert broken_links(path) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    """A missing file, a missing anchor and a path out of the repository are found; code is not looked at."""
    page = tmp_path / "page.md"
    page.write_text(
        "# One `code` (and more)\n## Twice\n## Twice\n"
        "[a](#one-code-and-more) [b](page.md#twice-1) [c](https://example.org/gone) `[d](gone.md)`\n"
        "```\n[e](gone.md)\n```\n[f](#twice-2) [g](gone.md) ![h](../page.md)\n",
        encoding="utf-8",
    )
    assert broken_links(page, tmp_path) == ["#twice-2", "gone.md", "../page.md"]


def test_the_index_leads_to_every_page() -> None:
    """Each page of docs has a link in their index."""
    known = {link.partition("#")[0] for link in links(ROOT / "docs" / "README.md")}
    assert {page.name for page in PAGES} - {"README.md"} <= known


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_python_in_documents_is_right(path: Path) -> None:
    """A session at a prompt goes on from those above it; other Python is valid on the oldest version."""
    names: dict[str, object] = {}
    for number, block in enumerate(PYTHON.findall(path.read_text(encoding="utf-8"))):
        if block.startswith(">>>"):
            session = doctest.DocTestParser().get_doctest(block, {}, f"{name(path)}[{number}]", None, None)
            session.globs = names
            doctest.DebugRunner().run(session, clear_globs=False)
        else:
            ast.parse(block, feature_version=(3, 10))


def test_the_readme_is_short() -> None:
    """README.md has at most 8,000 bytes: what is longer belongs in docs."""
    assert (ROOT / "README.md").stat().st_size <= 8_000


def test_the_drawing_of_the_rooms_names_every_module() -> None:
    """The tree on the page of the architecture has each folder of the package, with its modules alone."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = page.partition("src/speedy_utils/\n")[2].partition("```")[0]
    drawn = {
        folder: set(re.findall(r"\w+", modules.partition(":")[0]))
        for folder, modules in re.findall(r"^ +(\w+)/ +(.+)$", tree, re.MULTILINE)
    }
    package = ROOT / "src" / "speedy_utils"
    assert drawn == {
        folder.name: {module.stem for module in folder.glob("*.py")} - {"__init__"}
        for folder in package.rglob("*")
        if folder.is_dir() and folder.name != "__pycache__"
    }
