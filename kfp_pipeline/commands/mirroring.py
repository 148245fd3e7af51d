"""The other registries that are shown the champion, MLflow and Kubeflow's: their flags, and what a command tells them.

What a mirror needs, the package of MLflow's extra and the token of Kubeflow's registry, is looked for before anything moves.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kfp_pipeline.settings import Settings
from spark_jobs.errors import InputError, UnavailableError
from spark_jobs.registry import kubeflow_mirror, mlflow_mirror
from spark_jobs.registry.places import Place

Shown = dict[str, dict[str, str]]
"""For each alias the `version`, and what it is in the other registry."""


@dataclass(frozen=True)
class Mirror:
    """Another registry that is shown the champion.

    Attributes:
        title: its name in a sentence.
        key: of its version in `Shown`.
        show: takes this registry and the name of a model.
    """

    title: str
    key: str
    show: Callable[[Place, str], Shown]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flag of each mirror."""
    parser.add_argument(
        "--mlflow",
        default="",
        metavar="URI",
        help="MLflow server that shows the champion, too (default SPARK_KFP_MLFLOW_URI)",
    )
    parser.add_argument(
        "--kubeflow-registry",
        default="",
        metavar="URI",
        help="Kubeflow Model Registry that shows the champion, too (default SPARK_KFP_KUBEFLOW_REGISTRY_URI)",
    )


def mirrors_of(arguments: argparse.Namespace, settings: Settings) -> list[Mirror]:
    """Returns the mirrors that the flags or the settings name.

    Raises:
        InputError: MLflow's client is not installed, or the file of the token holds none.
        OSError: there is no such file.
    """
    mirrors = []
    if uri := arguments.mlflow or settings.mlflow_uri:
        require("mlflow")
        mirrors.append(Mirror("MLflow", "mlflow", partial(mlflow_mirror.mirror, tracking_uri=uri)))
    if uri := arguments.kubeflow_registry or settings.kubeflow_registry_uri:
        token = _token(settings.kubeflow_registry_token_path)
        show = partial(kubeflow_mirror.mirror, uri=uri, token=token)
        mirrors.append(Mirror("the Kubeflow Model Registry", "kubeflow", show))
    return mirrors


def _token(path: str) -> str:
    token = Path(path).read_text(encoding="utf-8", errors="replace").strip() if path else ""
    # It becomes an HTTP header; Python's own error about a wrong header would print it.
    if path and not (token and token.isprintable() and token.isascii()):
        raise InputError(f"{path}: a token is one line of plain ASCII; check SPARK_KFP_KUBEFLOW_REGISTRY_TOKEN_PATH")
    return token


def show_in_all(mirrors: list[Mirror], registry: Place, name: str) -> Shown:
    """Shows the champion and the canary in all mirrors; one that fails keeps none of the others from it.

    Raises:
        InputError: a mirror refuses, or the model has no champion.
        UnavailableError: a mirror does not answer, and none refuses.
    """
    shown: Shown = {}
    errors: list[InputError | UnavailableError] = []
    for mirror in mirrors:
        try:
            for alias, there in mirror.show(registry, name).items():
                shown[alias] = shown.get(alias, {}) | there
        except (InputError, UnavailableError) as error:
            errors.append(error)
    if errors:
        first = next((error for error in errors if isinstance(error, InputError)), errors[0])
        raise type(first)("; ".join(map(str, errors))) from first
    return shown


def after_a_move(arguments: argparse.Namespace, settings: Settings) -> Callable[[Place, str], None]:
    """Returns what a command calls when it has moved the pointer; without a mirror it does nothing.

    Raises:
        InputError: as `mirrors_of`; nothing has moved yet.
    """
    mirrors = mirrors_of(arguments, settings)

    def tell(registry: Place, name: str) -> None:
        try:
            show_in_all(mirrors, registry, name)
        except (InputError, UnavailableError) as error:
            raise type(error)(
                f"{error}; the pointer has moved all the same: `spark-kfp models mirror {name}` shows it there"
            ) from error

    return tell


def require(package: str) -> None:
    """Checks that the package of the extra of the same name is there.

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise InputError(f"{package} is not installed; install the extra: pip install 'spark-kfp[{package}]'")
