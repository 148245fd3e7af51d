"""The architecture, held by guards: each looks at a source tree and returns what is wrong with it.

The project's own tree must give nothing, and each guard must see the faults that are planted in a copy: a guard that has gone blind fails
here. The import contracts of pyproject.toml see every import that is written down; the blocked imports see what really happens when a
module is imported. Either alone misses some of the planted faults.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from spark_jobs.arguments import flag
from spark_jobs.contract import ARGUMENTS

PROJECT = Path(__file__).parents[1]
PACKAGES = ("spark_jobs", "kfp_pipeline", "serving")
SCRIPTS = ("benchmarks", "data", "tests", "tools")
DOOR = ("spark_jobs.object_names", "spark_jobs.object_store_settings", "spark_jobs.object_store")
"""The one door to object stores; it imports its only third-party package, minio, when it is used."""
GROUND = (
    "spark_jobs.arguments",
    "spark_jobs.cells",
    "spark_jobs.comparison",
    "spark_jobs.contract",
    "spark_jobs.dataset",
    "spark_jobs.dialect",
    "spark_jobs.errors",
    "spark_jobs.gate",
    "spark_jobs.local_files",
    "spark_jobs.onnx_export",
    "spark_jobs.paired",
    "spark_jobs.promotion",
    "spark_jobs.provenance",
    "spark_jobs.registry",
    "spark_jobs.registry.archive",
    "spark_jobs.registry.kubeflow_mirror",
    "spark_jobs.registry.kubeflow_model_registry",
    "spark_jobs.registry.mirrored",
    "spark_jobs.registry.mlflow_mirror",
    "spark_jobs.registry.places",
    "spark_jobs.registry.pointer",
    "spark_jobs.registry.pruning",
    "spark_jobs.registry.version_document",
    "spark_jobs.registry.versions",
    "spark_jobs.result",
    "spark_jobs.search",
    "spark_jobs.session_requests",
    "spark_jobs.trials",
    *DOOR,
)
MOST_STATEMENTS = 10
ENVIRONMENT = ("environ", "environb", "getenv", "getenvb")
SPARK = ("pyspark", "py4j", "numpy", "matplotlib", "jinja2")
KUBEFLOW = ("kfp", "kfp_server_api", "kubernetes", "rich")

IMPORT_ALL_BUT = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if any(name == each or name.startswith(each + ".") for each in BLOCKED):
            raise ImportError(f"{name} is blocked")
        if ONLY and name.partition(".")[0] not in {*sys.stdlib_module_names, *ONLY}:
            raise ImportError(f"{name} is not of the standard library")

sys.path.insert(0, ROOT)
sys.meta_path.insert(0, Blocker())
for name in MODULES:
    importlib.import_module(name)
    assert sys.modules[name].__file__.startswith(ROOT), sys.modules[name].__file__
"""


def sources(root: Path, *folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders or PACKAGES:
        for path in sorted((root / folder).rglob("*.py")):
            yield path.relative_to(root), ast.parse(path.read_text(encoding="utf-8"))


def modules(root: Path, package: str) -> list[str]:
    names = [
        path.relative_to(root).with_suffix("").as_posix().replace("/", ".") for path in (root / package).rglob("*.py")
    ]
    return sorted(name.removesuffix(".__init__") for name in names)


def import_contracts(root: Path) -> list[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else [done.stdout + done.stderr]


def import_blocked(
    root: Path, names: Sequence[str], blocked: Sequence[str] = (), only: Sequence[str] = ()
) -> list[str]:
    values = {"ROOT": str(root), "MODULES": names, "BLOCKED": blocked, "ONLY": only}
    script = "".join(f"{name} = {value!r}\n" for name, value in values.items()) + IMPORT_ALL_BUT
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else [done.stderr]


def spark_jobs_imports_without_kubeflow(root: Path) -> list[str]:
    return import_blocked(root, modules(root, "spark_jobs"), blocked=("kfp_pipeline", "serving", *KUBEFLOW))


def kfp_pipeline_imports_without_spark(root: Path) -> list[str]:
    above_the_ground = [name for name in modules(root, "spark_jobs") if name not in ("spark_jobs", *GROUND)]
    return import_blocked(
        root, [*GROUND, *modules(root, "kfp_pipeline")], blocked=(*above_the_ground, "serving", *SPARK)
    )


def serving_imports_alone(root: Path) -> list[str]:
    return import_blocked(root, modules(root, "serving"), blocked=("spark_jobs", "kfp_pipeline", *SPARK, *KUBEFLOW))


def ground_imports_with_the_standard_library_only(root: Path) -> list[str]:
    return import_blocked(root, GROUND, only=("spark_jobs",))


def one_arrow_between_the_halves(root: Path) -> list[str]:
    """An import inside a function happens late, so the blocked imports do not see it."""
    faults = []
    for path, tree in sources(root, "kfp_pipeline"):
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module == "spark_jobs":
                names = [f"spark_jobs.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            faults += [
                f"{path} imports {name}" for name in names if name.split(".")[0] == "spark_jobs" and name not in GROUND
            ]
    return faults


def imports_by_name_where_a_name_chooses_a_module_only(root: Path) -> list[str]:
    """A step, an estimator and a graph are the modules of their names; each is found in one place."""
    doors = ("spark_jobs/step_execution.py", "spark_jobs/estimator.py", "kfp_pipeline/graphs.py")
    faults = []
    for path, tree in sources(root):
        called = {ast.unparse(node.func).split(".")[-1] for node in ast.walk(tree) if isinstance(node, ast.Call)}
        if called & {"import_module", "__import__", "exec_module"} and path.as_posix() not in doors:
            faults.append(f"{path} imports by name")
    return faults


def packages_are_empty(root: Path) -> list[str]:
    return [
        f"{path} holds more than a docstring"
        for path, tree in sources(root)
        if path.name == "__init__.py" and (len(tree.body) != 1 or not ast.get_docstring(tree))
    ]


def statements_in(function: ast.FunctionDef) -> int:
    """Statements of the body at any depth, without the docstring."""
    return sum(isinstance(each, ast.stmt) for each in ast.walk(function)) - 1 - bool(ast.get_docstring(function))


def component_bodies_are_short(root: Path) -> list[str]:
    faults = []
    for path, tree in sources(root, "kfp_pipeline"):
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef) or (count := statements_in(node)) <= MOST_STATEMENTS:
                continue
            if any("component" in ast.unparse(each) for each in node.decorator_list):
                faults.append(f"{path}: the body of {node.name} has {count} statements")
    return faults


def no_name_of_the_standard_library(root: Path) -> list[str]:
    return [
        f"{path} hides a module of the standard library"
        for path, _ in sources(root)
        if path.stem in sys.stdlib_module_names
    ]


def flags_come_from_the_contract(root: Path) -> list[str]:
    """A sentence may advise a flag that the contract has; an argument is made by `to_argv`, never spelt out."""
    flags = {flag(name) for kind in ARGUMENTS.values() for name in kind.names()}
    faults = []
    for path, tree in sources(root):
        if path.as_posix() in ("spark_jobs/arguments.py", "spark_jobs/contract.py"):
            continue
        texts = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        for text in texts - {ast.get_docstring(tree, clean=False)}:  # a module's may show a whole spark-submit line
            argument = re.fullmatch(r"(--[a-z-]+)(=\S*)?", text)
            if argument and argument[1] in flags:
                faults.append(f"{path} spells out {argument[1]}")
            if path.parts[0] == "spark_jobs":
                unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - flags
                faults += [f"{path} advises {name}, which the contract lacks" for name in sorted(unknown)]
    return faults


def environment_is_read_in_one_place(root: Path) -> list[str]:
    """Only the settings may name the environment, whatever it is called there; elsewhere a child process may be given all of it.

    That is: `{**os.environ, ...}`, from which nothing is looked up at once, or `env=os.environ`.
    """
    doors = (
        "spark_jobs/session.py",
        "spark_jobs/object_store_settings.py",
        "kfp_pipeline/settings.py",
        "serving/settings.py",
    )
    return [
        f"{path}:{node.lineno} reads the environment"
        for path, tree in sources(root)
        if path.as_posix() not in doors
        for node in environment_named(tree)
    ]


def environment_named(tree: ast.Module) -> Iterator[ast.expr | ast.alias]:
    """Every place that names the environment, or a function that reads it, but for what is handed to a child process."""
    nodes = list(ast.walk(tree))
    looked_up = {id(node.value) for node in nodes if isinstance(node, ast.Attribute | ast.Subscript)}
    handed_on = {id(node.value) for node in nodes if isinstance(node, ast.keyword) and node.arg == "env"}
    for node in nodes:
        if isinstance(node, ast.Dict) and id(node) not in looked_up:
            handed_on |= {id(value) for key, value in zip(node.keys, node.values, strict=True) if key is None}
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (alias for alias in node.names if alias.name in {*ENVIRONMENT, "*"})
    for node in nodes:
        named = getattr(node, "attr", None) or getattr(node, "id", None) or getattr(node, "value", None)
        if (
            isinstance(node, ast.Attribute | ast.Name | ast.Constant)
            and id(node) not in handed_on
            and named in ENVIRONMENT
        ):
            yield node


def constants_stand_once(root: Path) -> list[str]:
    """A text, a number, a product of them or a tuple that two modules know by the same name belongs to one of them.

    But `serving`, which imports neither half, says again what it needs.
    """
    homes: dict[tuple[str, str], list[str]] = {}
    for path, tree in sources(root, "spark_jobs", "kfp_pipeline"):
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(getattr(node, "value", None), ast.Constant | ast.Tuple | ast.BinOp):
                for name in (target.id for target in targets if isinstance(target, ast.Name)):
                    homes.setdefault((name, ast.unparse(node.value)), []).append(path.as_posix())  # type: ignore[union-attr]
    return [f"{name} stands in {' and '.join(paths)}" for (name, _), paths in homes.items() if len(paths) > 1]


def spark_jobs_run_on_spark_connect(root: Path) -> list[str]:
    classic = {"rdd", "sparkContext", "_jvm", "_jdf", "_sc", "SparkContext"}
    return [
        f"{path}:{node.lineno} uses {node.attr}"
        for path, tree in sources(root, "spark_jobs")
        if path
        != Path("spark_jobs/session_driver.py")  # it holds a classic session, and cancels the Spark jobs of a step
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in classic
    ]


def modules_say_what_they_are(root: Path) -> list[str]:
    return [
        f"{path} has no docstring" for path, tree in sources(root, *PACKAGES, *SCRIPTS) if not ast.get_docstring(tree)
    ]


def contracts_have_no_exceptions(root: Path) -> list[str]:
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    faults = [
        f"{each['id']} ignores {each['ignore_imports']}" for each in settings["contracts"] if each.get("ignore_imports")
    ]
    for each in settings["contracts"]:
        if each["type"] == "layers" and (each.get("exhaustive_ignores") or not each.get("exhaustive")):
            faults.append(f"{each['id']} is not exhaustive")
    return faults


Guard = Callable[[Path], list[str]]
GUARDS: tuple[Guard, ...] = (
    import_contracts,
    spark_jobs_imports_without_kubeflow,
    kfp_pipeline_imports_without_spark,
    serving_imports_alone,
    ground_imports_with_the_standard_library_only,
    one_arrow_between_the_halves,
    imports_by_name_where_a_name_chooses_a_module_only,
    packages_are_empty,
    component_bodies_are_short,
    no_name_of_the_standard_library,
    flags_come_from_the_contract,
    environment_is_read_in_one_place,
    constants_stand_once,
    spark_jobs_run_on_spark_connect,
    modules_say_what_they_are,
    contracts_have_no_exceptions,
)


class Fault(NamedTuple):
    """A bad edit: `text` at the end of `path`, and a part of what `guard` must say about it."""

    guard: Guard
    path: str
    text: str
    said: str


LONG_BODY = "\n@dsl.component\ndef long():\n" + "    x = 1\n" * (MOST_STATEMENTS + 1)
FAULTS = (
    Fault(import_contracts, "spark_jobs/steps/load.py", "from spark_jobs.steps import train", "steps.load -> spark_jobs.steps.train"),
    Fault(import_contracts, "spark_jobs/features.py", "def f():\n    import spark_jobs.steps.load", "features -> spark_jobs.steps.load"),
    Fault(import_contracts, "spark_jobs/contract.py", "from spark_jobs import dataset", "contract -> spark_jobs.dataset"),
    Fault(import_contracts, "spark_jobs/newcomer.py", '"""New."""', "newcomer"),
    Fault(import_contracts, "spark_jobs/steps/train.py", "from spark_jobs.session import build_session", "train -> spark_jobs.session"),
    Fault(import_contracts, "spark_jobs/evaluation/report.py", "def f():\n    import kfp", "spark_jobs.evaluation.report -> kfp"),
    Fault(import_contracts, "kfp_pipeline/runtime/newcomer.py", "def f():\n    import pyspark", "runtime.newcomer -> pyspark"),
    Fault(import_contracts, "kfp_pipeline/runtime/errors.py", "import kfp_pipeline.runtime.step", "errors -> kfp_pipeline.runtime.step"),
    Fault(import_contracts, "serving/scorer.py", "def f():\n    import spark_jobs.contract", "serving.scorer -> spark_jobs.contract"),
    Fault(spark_jobs_imports_without_kubeflow, "spark_jobs/__init__.py", "import kfp", "kfp is blocked"),
    Fault(spark_jobs_imports_without_kubeflow, "spark_jobs/features.py", "__import__('kubernetes')", "kubernetes is blocked"),
    Fault(kfp_pipeline_imports_without_spark, "kfp_pipeline/__init__.py", "import pyspark", "pyspark is blocked"),
    Fault(kfp_pipeline_imports_without_spark, "kfp_pipeline/__init__.py", "import spark_jobs.features", "features is blocked"),
    Fault(kfp_pipeline_imports_without_spark, "spark_jobs/__init__.py", "import numpy", "numpy is blocked"),
    Fault(serving_imports_alone, "serving/scorer.py", "import spark_jobs.contract", "spark_jobs is blocked"),
    Fault(ground_imports_with_the_standard_library_only, "spark_jobs/dataset.py", "import yaml", "yaml is not of the standard library"),
    Fault(one_arrow_between_the_halves, "kfp_pipeline/runtime/newcomer.py", "def f():\n    from spark_jobs import split", "jobs.split"),
    Fault(one_arrow_between_the_halves, "kfp_pipeline/runtime/newcomer.py", "import spark_jobs.features", "spark_jobs.features"),
    Fault(imports_by_name_where_a_name_chooses_a_module_only, "serving/scorer.py", "importlib.import_module(name)", "imports by name"),
    Fault(packages_are_empty, "kfp_pipeline/runtime/__init__.py", "import os", "more than a docstring"),
    Fault(component_bodies_are_short, "kfp_pipeline/newcomer.py", LONG_BODY, "long has 11 statements"),
    Fault(no_name_of_the_standard_library, "serving/logging.py", '"""New."""', "serving/logging.py"),
    Fault(flags_come_from_the_contract, "kfp_pipeline/newcomer.py", 'x = "--reg-param=0.1"', "spells out --reg-param"),
    Fault(flags_come_from_the_contract, "spark_jobs/steps/load.py", 'x = "give --delimeter"', "advises --delimeter"),
    Fault(environment_is_read_in_one_place, "spark_jobs/storage.py", "os.environ['HOME']", "reads the environment"),
    Fault(environment_is_read_in_one_place, "kfp_pipeline/newcomer.py", "import os as o\no.environ['HOME']", "reads the environment"),
    Fault(environment_is_read_in_one_place, "serving/scorer.py", "from os import getenv", "reads the environment"),
    Fault(environment_is_read_in_one_place, "spark_jobs/object_store.py", "from os import environ as e", "reads the environment"),
    Fault(environment_is_read_in_one_place, "spark_jobs/storage.py", "from os import *", "reads the environment"),
    Fault(environment_is_read_in_one_place, "kfp_pipeline/newcomer.py", "os.environ.get('HOME')", "reads the environment"),
    Fault(environment_is_read_in_one_place, "serving/scorer.py", "'HOME' in os.environ", "reads the environment"),
    Fault(environment_is_read_in_one_place, "spark_jobs/object_store.py", "e = os.environ\ne['HOME']", "reads the environment"),
    Fault(environment_is_read_in_one_place, "spark_jobs/storage.py", "def f(e=os.environ):\n    return e['HOME']", "reads the environment"),
    Fault(environment_is_read_in_one_place, "spark_jobs/storage.py", "e = None or os.environ\ne.get('HOME')", "reads the environment"),
    Fault(environment_is_read_in_one_place, "serving/scorer.py", "f(os.environ)", "reads the environment"),
    Fault(environment_is_read_in_one_place, "spark_jobs/object_store.py", "os.getenv('HOME')", "reads the environment"),
    Fault(environment_is_read_in_one_place, "spark_jobs/storage.py", "getattr(os, 'environ')['HOME']", "reads the environment"),
    Fault(environment_is_read_in_one_place, "kfp_pipeline/newcomer.py", "vars(os)['environ']", "reads the environment"),
    Fault(environment_is_read_in_one_place, "serving/scorer.py", "{**os.environ}['HOME']", "reads the environment"),
    Fault(environment_is_read_in_one_place, "spark_jobs/object_store.py", "{**os.environ}.get('HOME')", "reads the environment"),
    Fault(environment_is_read_in_one_place, "spark_jobs/storage.py", "import posix as p\np.environ[b'HOME']", "reads the environment"),
    Fault(constants_stand_once, "kfp_pipeline/newcomer.py", 'RESULT_NAME: str = "result.json"', "RESULT_NAME stands in"),
    Fault(constants_stand_once, "kfp_pipeline/newcomer.py", "HEAD_BYTES = 4 << 20", "HEAD_BYTES stands in"),
    Fault(constants_stand_once, "spark_jobs/steps/load.py", "A, B = 1, 2\nSPLITS = ('hash', 'ordered')", "SPLITS stands in"),
    Fault(spark_jobs_run_on_spark_connect, "spark_jobs/steps/train.py", "def f(x):\n    return x.rdd.count()", "uses rdd"),
    Fault(modules_say_what_they_are, "data/newcomer.py", "x = 1", "has no docstring"),
    Fault(contracts_have_no_exceptions, "pyproject.toml", 'ignore_imports = ["a -> b"]', "door_to_spark ignores"),
)  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in (*PACKAGES, *SCRIPTS):
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.csv"))
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_the_tree_stands_as_designed(guard: Guard) -> None:
    assert guard(PROJECT) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.guard.__name__}:{fault.path}")
def test_a_planted_fault_is_seen(fault: Fault, copy: Path) -> None:
    with (copy / fault.path).open("a", encoding="utf-8") as file:
        file.write(f"\n{fault.text}\n")
    assert fault.said in "\n".join(fault.guard(copy))


def test_every_guard_has_a_planted_fault() -> None:
    assert {fault.guard for fault in FAULTS} == set(GUARDS)
