"""Finds the KFP graph of a pipeline by the pipeline's name: the module of that name in `kfp_pipeline.pipelines`."""

from __future__ import annotations

import importlib
from typing import Any

from kfp_pipeline.task_settings import Platform


def make_pipeline(name: str, platform: Platform) -> Any:
    """Returns the KFP pipeline of this name, with the platform's settings on each of its tasks."""
    return importlib.import_module(f"kfp_pipeline.pipelines.{name}").make_pipeline(platform)
