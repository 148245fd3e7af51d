"""Walks a compiled pipeline as KFP does: graphs in graphs, conditions, loops, exit handlers, retries, its cache.

It decides what runs and with which inputs; `launch` runs one attempt of one task.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ir import Compiled, CompiledTask, Document

Launch = Callable[[CompiledTask, Mapping[str, Any], int], tuple[bool, Document]]
"""A task, its inputs and the number of the attempt, from 0: whether it succeeded, and the parameters that it has put out."""
SUCCEEDED, FAILED, SKIPPED = "SUCCEEDED", "FAILED", "SKIPPED"
SCHEDULE_TIME = "{{$.pipeline_job_schedule_time_utc}}"
PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")


@dataclass
class Walker:
    """One run of a compiled pipeline.

    Attributes:
        compiled: the pipeline.
        launch: runs one attempt of one task.
        run_id: of the run.
        due: when a recurring run was due, else when the run was made; None: a driver before 2.17, which does not know it.
        cache: key to what the task has put out; shared by runs.
        states: path of each task, like `exit-handler-1/load`, to how it ended.
        reused: the paths of the tasks that were taken from the cache.
    """

    compiled: Compiled
    launch: Launch
    run_id: str = "run"
    cache: dict[str, Document] = field(default_factory=dict)
    due: str | None = "2026-11-25T15:32:00Z"
    states: dict[str, str] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)

    def run(self, inputs: Mapping[str, Any]) -> str:
        """Runs all of it; the state at the end is that of the worst task."""
        root = self.compiled.document["root"]
        known = root.get("inputDefinitions", {}).get("parameters", {})
        if unknown := set(inputs) - set(known):
            raise ValueError(f"the pipeline has no input {', '.join(sorted(unknown))}")
        given = {**self.compiled.defaults, **inputs}
        if missing := {name for name, item in known.items() if not item.get("isOptional")} - set(given):
            raise ValueError(f"the pipeline needs {', '.join(sorted(missing))}")
        return self._graph(root, given, "")[0]

    def _graph(self, component: Mapping[str, Any], given: Mapping[str, Any], path: str) -> tuple[str, Document]:
        """Runs a graph's tasks, each after those that it depends on."""
        tasks, ended, outputs = dict(component["dag"]["tasks"]), dict[str, str](), dict[str, Document]()
        while tasks:
            name = next(name for name, task in tasks.items() if set(task.get("dependentTasks", [])) <= set(ended))
            task = tasks.pop(name)
            before = [ended[other] for other in task.get("dependentTasks", [])]
            at_the_end = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
            if not at_the_end and any(state != SUCCEEDED for state in before):
                ended[name] = self._ends(f"{path}{name}", SKIPPED)
                continue
            values = self._inputs(task, given, outputs, ended)
            if not self._wanted(task, values):
                ended[name] = self._ends(f"{path}{name}", SKIPPED)
                continue
            ended[name], outputs[name] = self._task(name, task, values, path)
        worst = FAILED if FAILED in ended.values() else SUCCEEDED
        return worst, self._outputs(component, outputs)

    def _ends(self, path: str, state: str) -> str:
        self.states[path] = state
        return state

    def _task(self, name: str, task: Mapping[str, Any], values: Document, path: str) -> tuple[str, Document]:
        """Runs a task: once, or once for each item of a loop."""
        if "parameterIterator" not in task:
            return self._once(name, task, values, path)
        iterator = task["parameterIterator"]
        items = iterator["items"]
        listed = values[items["inputParameter"]] if "inputParameter" in items else json.loads(items["raw"])
        states = [
            self._once(f"{name}[{number}]", task, {**values, iterator["itemInput"]: item}, path)[0]
            for number, item in enumerate(listed)
        ]
        return self._ends(f"{path}{name}", FAILED if FAILED in states else SUCCEEDED), {}

    def _once(self, name: str, task: Mapping[str, Any], values: Document, path: str) -> tuple[str, Document]:
        component = self.compiled.component(task)
        if "dag" in component:
            state, output = self._graph(component, values, f"{path}{name}/")
            return self._ends(f"{path}{name}", state), output
        state, output = self._container(self.compiled.task(name, task), values, f"{path}{name}")
        return self._ends(f"{path}{name}", state), output

    def _container(self, task: CompiledTask, values: Document, path: str) -> tuple[str, Document]:
        """Runs a task's container, again if it fails, or takes over what an earlier run's has put out."""
        key = task.cache_key(values)
        if task.cached and key in self.cache:
            self.reused.append(path)
            return SUCCEEDED, self.cache[key]
        for attempt in range(task.attempts):
            succeeded, output = self.launch(task, values, attempt)
            if succeeded:
                self.cache[key] = output
                return SUCCEEDED, output
        return FAILED, {}

    def _inputs(
        self,
        task: Mapping[str, Any],
        given: Mapping[str, Any],
        outputs: Mapping[str, Document],
        ended: Mapping[str, str],
    ) -> Document:
        values = {}
        for name, item in self.compiled.component(task).get("inputDefinitions", {}).get("parameters", {}).items():
            if "defaultValue" in item:
                values[name] = item["defaultValue"]
        for name, source in task.get("inputs", {}).get("parameters", {}).items():
            if "componentInputParameter" in source:
                if source["componentInputParameter"] not in given:
                    continue  # a loop's item, outside of the loop
                value = given[source["componentInputParameter"]]
            elif "taskOutputParameter" in source:
                output = source["taskOutputParameter"]
                value = outputs[output["producerTask"]][output["outputParameterKey"]]
            elif "taskFinalStatus" in source:
                producer = source["taskFinalStatus"]["producerTask"]
                # The real driver fills in no message either (backend/src/v2/driver/resolve.go).
                value = {"state": ended[producer], "pipelineTaskName": producer, "error": {}}
            else:
                value = self._constant(source["runtimeValue"]["constant"])
            if selector := source.get("parameterExpressionSelector"):
                value = value[re.fullmatch(r'parseJson\(string_value\)\["(\w+)"\]', selector)[1]]  # type: ignore[index]
            values[name] = value
        return {name: self._filled(value, values) for name, value in values.items()}

    def _constant(self, value: Any) -> Any:
        """A constant; one that is a placeholder and nothing else is replaced, as backend/src/v2/driver/resolve.go does."""
        known = {"{{$.pipeline_job_uuid}}": self.run_id, **({SCHEDULE_TIME: self.due} if self.due else {})}
        return known.get(value, value) if isinstance(value, str) else value

    def _filled(self, value: Any, values: Mapping[str, Any]) -> Any:
        """A text with its placeholders replaced."""
        if not isinstance(value, str):
            return value
        return PLACEHOLDER.sub(lambda found: str(values[found[1]]), value)

    @staticmethod
    def _wanted(task: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
        """Whether a task's condition holds; the compiler's are close enough to Python."""
        condition = task.get("triggerPolicy", {}).get("condition")
        if not condition:
            return True
        python = condition.replace("&&", " and ").replace("||", " or ").replace("!(", " not (")
        names = {
            "inputs": SimpleNamespace(parameter_values=values),
            "int": int,
            "double": float,
            "string": str,
            "true": True,
            "false": False,
            "__builtins__": {},
        }
        return bool(eval(python.strip(), names))

    @staticmethod
    def _outputs(component: Mapping[str, Any], outputs: Mapping[str, Document]) -> Document:
        found = {}
        for name, source in component["dag"].get("outputs", {}).get("parameters", {}).items():
            inner = source["valueFromParameter"]
            output = outputs.get(inner["producerSubtask"], {})
            if inner["outputParameterKey"] in output:
                found[name] = output[inner["outputParameterKey"]]
        return found
