"""The outputs of a finished training run, made in a moment and without Spark: what the registry reads of it."""

from __future__ import annotations

import json
from pathlib import Path

from spark_jobs.registry import versions
from spark_jobs.registry.places import Place
from spark_jobs.registry.versions import RunOutputs
from spark_jobs.result import Result


def finished_run(folder: Path, *, seed: int = 0, finished_at: str = "2026-11-28T12:00:00+00:00") -> RunOutputs:
    """Writes the outputs of the four steps below a folder; another seed is another model."""
    outputs = RunOutputs(**{f"{step}_uri": str(folder / step) for step in ("load", "preprocess", "train", "evaluate")})
    evaluation = {
        "label": "deposit",
        "labels": ["no", "yes"],
        "positive": "yes",
        "model": {"kind": "logistic regression", "threshold": 0.5},
        "metrics": [{"name": "areaUnderROC", "value": 0.88, "low": 0.86, "high": 0.9, "interval": "DeLong"}],
        "data": {"uri": "bank.csv", "rows": 4000, "suspicious": []},
        "split": {"rows": {"train": 1, "test": 1}, "class_fractions": {"train": {"no": 0.5, "yes": 0.5}}},
    }
    files = {
        "load/specification.toml": '[label]\nname = "deposit"\n',
        "load/profile.json": "{}",
        "preprocess/features.json": "{}",
        "train/model/metadata/part-00000": json.dumps({"class": "PipelineModel", "seed": seed}),
        "train/model/metadata/_SUCCESS": "",
        "train/model/stages/0_Indexer/data/part-00000.parquet": "data" * 100 + str(seed),
        "train/scorecard.json": json.dumps({"seed": seed}),
        "evaluate/evaluation.json": json.dumps(evaluation),
        "report.html": "<html></html>",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    inputs = {
        "load": {},
        "preprocess": {"load_uri": "load-digest"},
        "train": {"preprocess_uri": "preprocess-digest"},
        "evaluate": {"preprocess_uri": "preprocess-digest", "train_uri": "train-digest"},
    }
    arguments = {
        "load": {},
        "preprocess": {"load_uri": outputs.load_uri, "seed": 42},
        "train": {"preprocess_uri": outputs.preprocess_uri, "reg_param": 0.01},
        "evaluate": {"preprocess_uri": outputs.preprocess_uri, "train_uri": outputs.train_uri},
    }
    for step, read in inputs.items():
        result = Result(
            step=step,
            status="succeeded",
            inputs=read,
            arguments=arguments[step],
            digest=f"{step}-digest",
            uris={"report": str(folder / "report.html")} if step == "evaluate" else {},
            made_by={"finished_at": finished_at, "code_sha256": "c0de"},
        )
        (folder / step / "result.json").write_text(result.to_json(), encoding="utf-8")
    return outputs


def register(registry: Place, tmp_path: Path, name: str, seed: int) -> str:
    """Registers a run that `models promote` can judge, and returns its version; another seed is another model."""
    outputs = finished_run(tmp_path / f"run{seed}", seed=seed, finished_at=f"2026-11-0{seed + 1}T12:00:00+00:00")
    path = Path(outputs.evaluate_uri) / "evaluation.json"
    shares = {name: {"no": 0.5, "yes": 0.5} for name in ("train", "test")}
    split = {"rows": {"train": 3000, "test": 800}, "class_fractions": shares}
    judged = {"left_out": {"areaUnderROC": [0.88, 0.881] * 10}, "digests": {"data": "d"}, "split": split}
    path.write_text(json.dumps({**json.loads(path.read_text()), **judged}))
    examples = b'[{"row": {"x": 1}, "probabilities": {}}]'
    return str(
        versions.write(registry, versions.collect(name, outputs, run_id=f"run{seed}", examples=examples))["version"]
    )
