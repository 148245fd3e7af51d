"""A run of the whole compiled pipeline, its tasks in pods."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from conftest import E2E, TaskRun
from ir import CompiledTask
from walker import Walker

from kfp_pipeline.runtime import object_store

STEPS = ("load", "preprocess", "train", "evaluate")
TASKS = (*STEPS, "finish")


@dataclass
class Whole:
    """A run of the whole pipeline: each attempt of each task, with its log and what it put out."""

    e2e: E2E
    cache: dict[str, Any]
    inputs: dict[str, Any] = field(default_factory=dict)
    disturb: Callable[[CompiledTask, TaskRun], None] | None = None
    runs: dict[str, list[TaskRun]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    due: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    state: str = ""

    def run(self) -> Whole:
        self.walker = Walker(self.e2e.compiled, self.launch, self.run_id, self.cache, due=self.due)
        self.state = self.walker.run(self.e2e.inputs(**self.inputs))
        return self

    def launch(self, task: CompiledTask, values: Mapping[str, Any], attempt: int) -> tuple[bool, dict[str, Any]]:
        """One attempt of one task in a pod; the first may be disturbed."""
        run = self.e2e.start_task(task, values, self.run_id)
        self.runs.setdefault(task.name, []).append(run)
        if self.disturb and attempt == 0:
            self.disturb(task, run)
        phase, self.logs[task.name], self.outputs[task.name] = self.e2e.wait(run)
        return phase == "Succeeded", self.outputs[task.name].get("parameterValues", {})

    def artifact(self, task: str, name: str) -> dict[str, Any]:
        """An output artifact as the task has put it out."""
        found: dict[str, Any] = self.outputs[task]["artifacts"][name]["artifacts"][0]
        return found

    def document(self, task: str, name: str) -> str:
        """The content of a small artifact in the object store."""
        return object_store.read_text(self.artifact(task, name)["uri"]) or ""

    def summary(self) -> dict[str, Any]:
        text = object_store.read_text(f"{self.e2e.root}/{self.run_id}/summary.json")
        found: dict[str, Any] = json.loads(text or "{}")
        return found
