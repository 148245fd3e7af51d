"""The pages lead where they say, the site builds, and what they say about the code and the manifests is still so."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from kfp_pipeline import settings
from spark_jobs.object_store_settings import ObjectStoreSettings

PROJECT = Path(__file__).parents[1]
DOCS = PROJECT / "docs"
PAGES = sorted(
    [*PROJECT.glob("*.md"), *PROJECT.glob("data/*.md"), *PROJECT.glob("spark-operator/*.md"), *DOCS.glob("*.md")]
)
SITE = ("sphinx", "furo", "myst_parser")
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


def without_code(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub, and MyST like it, gives to the headings of a page."""
    seen, found = Counter[str](), set[str]()
    for heading in re.findall(r"^#{1,6} (.+)$", without_code(text), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def dead_links(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    text = page.read_text(encoding="utf-8")
    dead = []
    for target, anchor in LINK.findall(without_code(text)):
        path = page.parent / target if target else page
        there = path.exists() and (not anchor or anchor in anchors(path.read_text(encoding="utf-8")))
        dead += [] if there else [f"{target}#{anchor}".rstrip("#")]
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_every_link_and_anchor_of_a_page_leads_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_and_a_dead_anchor_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One, two\n\n[a](page.md) [b](#one-two) [c](gone.md) [d](page.md#three) [e](#four)\n", encoding="utf-8"
    )
    assert dead_links(page) == ["gone.md", "page.md#three", "#four"]


def test_the_index_leads_to_every_page() -> None:
    named = set(re.findall(r"\]\(([a-z-]+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert named == {page.name for page in DOCS.glob("*.md")} - {"index.md"}


def reference() -> ModuleType:
    """docs/reference.py, which is no module of a package."""
    found = importlib.util.spec_from_file_location("docs_reference", DOCS / "reference.py")
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def out_of_date(folder: Path, pages: dict[str, str]) -> list[str]:
    return [name for name, text in pages.items() if (folder / name).read_text(encoding="utf-8") != text]


def test_the_pages_made_from_the_code_are_up_to_date() -> None:
    assert out_of_date(DOCS, reference().pages()) == [], "run make generate, read the difference, commit it"


def test_a_page_that_is_out_of_date_is_seen(tmp_path: Path) -> None:
    made = reference()
    made.main(tmp_path)
    (tmp_path / "settings.md").write_text("old", encoding="utf-8")
    assert out_of_date(tmp_path, made.pages()) == ["settings.md"]


class Asked(dict[str, str]):
    """An environment that notes what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return default


def test_the_page_names_exactly_the_variables_that_the_settings_read() -> None:
    asked = Asked()
    own = [kind for kind in vars(settings).values() if isinstance(kind, type) and is_dataclass(kind)]
    for kind in [*own, ObjectStoreSettings]:
        with suppress(ValueError):
            kind.from_environment(asked)  # type: ignore[attr-defined]
    named = re.findall(r"^\| `([A-Z0-9_]+)` \|", (DOCS / "settings.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) == asked.names


def test_a_help_text_is_shown_as_it_is() -> None:
    made = reference()
    assert made.plain("local[*] or <b>") == r"local\[\*\] or \<b\>"
    assert made.table(("a",), [("x|y",)]).endswith(r"| x\|y |")


def texts_of_the_code() -> str:
    """All texts in the code, each f-string without what is filled in, and what else a page may quote."""
    found = []
    for path in [*PROJECT.glob("kfp_pipeline/**/*.py"), *PROJECT.glob("spark_jobs/**/*.py")]:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        found += [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    others = [DOCS / "faults.md", *PROJECT.glob("tools/*.sh")]
    return "\n".join([*found, *(path.read_text(encoding="utf-8") for path in others)])


def quotations(text: str) -> list[str]:
    """The messages that a page quotes: four words or more that are neither a command nor YAML."""
    found = re.findall(r"`([^`\n]+)`", re.sub(r"(?<!\n)\n(?!\n)", " ", without_code(text)))
    return [
        each
        for each in found
        if len(each.split()) >= 4 and not re.match(r"(kubectl|kind|minikube|spark-kfp) |.*[{]", each)
    ]


def not_in_the_code(quoted: str, known: str) -> list[str]:
    """The words of a quotation that do not stand beside their neighbours in any text of the code.

    What looks filled in is left out: it is short, or has a capital, a digit or a sign in it. A word between two such stands for itself.
    """
    words = quoted.split()
    plain = [bool(re.fullmatch("[a-z]{4,}[:;,]?", word)) for word in words]
    wrong = []
    for at, word in enumerate(words):
        beside = [" ".join(words[start : start + 2]) for start in (at - 1, at) if 0 <= start < len(words) - 1]
        alone = not any(plain[near] for near in (at - 1, at + 1) if 0 <= near < len(words)) and word in known
        wrong += [word] if plain[at] and not alone and not any(pair in known for pair in beside) else []
    return wrong


def test_the_messages_that_the_page_of_troubles_quotes_are_the_codes_own() -> None:
    known = " ".join(texts_of_the_code().split())
    quoted = quotations((DOCS / "troubleshooting.md").read_text(encoding="utf-8"))
    assert len(quoted) > 30
    assert {text: words for text in quoted if (words := not_in_the_code(text, known))} == {}


def test_a_message_that_the_code_does_not_have_is_seen() -> None:
    known = " ".join(texts_of_the_code().split())
    assert not_in_the_code("the driver's pod has vanished: it was deleted", known) == ["vanished:"]


def made_by_the_base() -> set[str]:
    """The names of all objects that the base makes."""
    base, names = PROJECT / "spark-operator" / "base", set[str]()
    kustomization = yaml.safe_load((base / "kustomization.yaml").read_text(encoding="utf-8"))
    for path in kustomization["resources"]:
        names |= {item["metadata"]["name"] for item in yaml.safe_load_all((base / path).read_text(encoding="utf-8"))}
    return names | {item["name"] for item in kustomization["configMapGenerator"]}


def test_the_page_for_platform_engineers_names_every_object_of_the_base_and_no_other() -> None:
    page = (DOCS / "shared-cluster.md").read_text(encoding="utf-8")
    listed = page.partition("## What is applied")[2].partition("| `overlays/minikube`")[0]
    assert (
        set(re.findall(r"`([a-z-]+)`", listed)) - {"restricted", "pipeline-runner", "endpoint", "region"}
        == made_by_the_base()
    )


def test_the_picture_has_a_title_and_both_colour_schemes_and_runs_nothing() -> None:
    text = (DOCS / "objects.svg").read_text(encoding="utf-8")
    names = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(text).iter()}
    assert {"title", "desc"} <= names
    assert not names & {"script", "foreignObject", "image", "a"}
    assert "prefers-color-scheme: dark" in text


def build(docs: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        str(target / "doctrees"),
        str(docs),
        str(target / "html"),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


needs_sphinx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in SITE),
    reason="the dependency group docs is not installed: uv sync --extra spark --group docs",
)


@needs_sphinx
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = build(DOCS, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {path.stem for path in (tmp_path / "html").glob("*.html")} >= {page.stem for page in DOCS.glob("*.md")}
    assert "objects.svg" in (tmp_path / "html" / "concepts.html").read_text(encoding="utf-8")


@needs_sphinx
def test_a_site_with_a_dead_link_does_not_build(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("_build"))
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    with (tmp_path / "docs" / "care.md").open("a", encoding="utf-8") as page:
        page.write("\n[gone](kind.md#nowhere)\n")
    done = build(tmp_path / "docs", tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stderr
