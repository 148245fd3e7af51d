"""docs/architecture.md against the code: its table of folders, their imports, and the files that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import grimp
import pytest

PROJECT = Path(__file__).parents[1]
PACKAGES = ("spark_jobs", "kfp_pipeline", "serving")
PAGE = (PROJECT / "docs/architecture.md").read_text(encoding="utf-8")


def folder_of(module: str) -> str:
    path = PROJECT / module.replace(".", "/")
    return f"{(path if path.is_dir() else path.parent).relative_to(PROJECT).as_posix()}/"


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """By folder the other folders whose modules its own modules import."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        folder = folder_of(module)
        others = {folder_of(other) for other in graph.find_modules_directly_imported_by(module)}
        found.setdefault(folder, set()).update(others - {folder})
    return found


def table(page: str) -> Iterator[tuple[str, set[str]]]:
    """The rows of the table of folders: the folder, and those that it imports."""
    section = page.partition("## Folders, and who may import whom")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| `(\w+/[\w/]*)` \|[^|]*\|([^|]*)\|$", section, re.MULTILINE):
        yield row[0], set(re.findall(r"`([\w/]+/)`", row[1]))


def differences(page: str, imports: Mapping[str, set[str]]) -> list[str]:
    told = dict(table(page))
    faults = [f"{folder} is not in the table" for folder in sorted(set(imports) - set(told))]
    faults += [f"{folder} is in the table and not in the code" for folder in sorted(set(told) - set(imports))]
    for folder in sorted(set(told) & set(imports)):
        faults += [
            f"{folder} imports {other}, the table does not say so" for other in sorted(imports[folder] - told[folder])
        ]
        faults += [
            f"{folder} does not import {other}, as the table says" for other in sorted(told[folder] - imports[folder])
        ]
    return faults


def test_the_table_of_folders_is_what_the_code_imports(imports: dict[str, set[str]]) -> None:
    assert differences(PAGE, imports) == []


def test_a_wrong_table_is_seen(imports: dict[str, set[str]]) -> None:
    assert differences(PAGE.replace("| `serving/` |", "| `serves/` |"), imports) == [
        "serving/ is not in the table",
        "serves/ is in the table and not in the code",
    ]
    row = "| `spark_jobs/evaluation/` | metrics, intervals, charts, the report | `spark_jobs/` |"
    assert PAGE.count(row) == 1
    wrong = PAGE.replace(row, row.replace("`spark_jobs/` |", "`spark_jobs/table/` |"))
    assert differences(wrong, imports) == [
        "spark_jobs/evaluation/ imports spark_jobs/, the table does not say so",
        "spark_jobs/evaluation/ does not import spark_jobs/table/, as the table says",
    ]


def test_every_file_that_the_page_names_is_there() -> None:
    named = re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|yaml|j2))`", PAGE)
    assert len(named) > 10
    # A name may leave out the package that the sentence is about.
    assert [
        name for name in named if not any((PROJECT / start / name).exists() for start in ("", "kfp_pipeline"))
    ] == []


def test_the_picture_names_folders_and_modules_that_are_there() -> None:
    picture = PAGE.partition("```mermaid")[2].partition("```")[0]
    for name in ("commands", "kfp_server", "doctor", "local", "pipelines", "components", "runtime/spark_operator"):
        assert name in picture
        assert (PROJECT / "kfp_pipeline" / name).exists() or (PROJECT / f"kfp_pipeline/{name}.py").exists()
    for name in ("steps", "estimators", "evaluation", "features", "split", "table", "storage", "session", "contract"):
        assert name in picture
        assert (PROJECT / "spark_jobs" / name).exists() or (PROJECT / f"spark_jobs/{name}.py").exists()
