"""Finds the KFP graph of a pipeline by the pipeline's name."""

from __future__ import annotations

import importlib
from typing import Any

from kfp_pipeline.task_settings import Platform


def make_pipeline(name: str, platform: Platform) -> Any:
    """The pipeline as KFP takes it, with what a platform gives to its tasks: the module of that name in `kfp_pipeline.pipelines`."""
    return importlib.import_module(f"kfp_pipeline.pipelines.{name}").make_pipeline(platform)
