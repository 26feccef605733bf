"""A new stage is a file, and its import and entry in kinds.py: everything else derives from it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import make_data, make_model

ROOT = Path(__file__).parents[2]
NEW_STAGE = '''
"""The stage scale: multiplies the weights of the task head."""

from typing import ClassVar, Literal

from pydantic import Field

from prunelora.stages.base import Stage


class ScaleStage(Stage):
    """Multiply the weights of the task head."""

    stage: Literal["scale"] = "scale"
    factor: float = Field(2.0, gt=0, description="Factor of the weights.")

    label: ClassVar[str] = "after scaling"
    changes_model: ClassVar[bool] = True
    restores_model_only: ClassVar[bool] = True
    artefacts: ClassVar = {"scaled.json": "scaled"}

    def run(self, run, name):
        self.restore(run, name)
        run.path(name, "scaled.json").write_text("{}")
        return {"norm": float(run.model.classifier.weight.norm()), "validation": run.quality("validation")}

    def restore(self, run, name):
        run.model.classifier.weight.data *= self.factor

    def files(self):
        return ("scaled.json",)
'''
SCRIPT = """
import contextlib, io, json, sys
from prunelora.cli.main import main
from prunelora.comparison.methods import LEFT_OUT
from prunelora.report.run_tables import journey
from prunelora.run.execute import execute
from prunelora.run.recipe import load_recipe

recipe = load_recipe(sys.argv[1]).with_options({"factor": "3"})
first = execute(recipe, "run", until="scale", progress=False)
told = []
second = execute(recipe, "run", tell=told.append, progress=False)
whole = execute(recipe, "whole", progress=False)
changed = execute(recipe.with_settings({"scale.factor": 4}), "run", progress=False)
sys.argv = ["prunelora", "scale", "run", "--factor", "3", "--json"]
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    main()
sys.argv = ["prunelora", "--help"]
with contextlib.redirect_stdout(io.StringIO()) as help, contextlib.suppress(SystemExit):
    main()
print(json.dumps({
    "ran": [first.ran, second.ran, changed.ran],
    "told": told,
    "paths": list(first.paths),
    "scores": [outcome.results.importance.heads[0].tolist() for outcome in (second, whole)],
    "norms": [outcome.results.facts("scale")["norm"] for outcome in (second, changed)],
    "journey": [row[0] for row in journey(first.results).rows],
    "left_out": "scale" in LEFT_OUT,
    "command": json.loads(out.getvalue()),
    "help": help.getvalue(),
}))
"""


def test_a_new_stage_is_a_file_and_a_line(tmp_path, minilm_path):
    shutil.copytree(ROOT / "src" / "prunelora", tmp_path / "src" / "prunelora")
    stages = tmp_path / "src" / "prunelora" / "stages"
    (stages / "scale.py").write_text(NEW_STAGE)
    kinds = (stages / "kinds.py").read_text()
    added = "from prunelora.stages.scale import ScaleStage\n\nKINDS: tuple[type[Stage], ...] = (\n    ScaleStage,\n"
    (stages / "kinds.py").write_text(kinds.replace("\nKINDS: tuple[type[Stage], ...] = (\n", added))
    model, data = make_model(tmp_path / "model", minilm_path), make_data(tmp_path / "data.csv", rows=60)
    (tmp_path / "new.yaml").write_text(
        f"model: {model}\ntask: {{data: {data}, max_length: 16}}\nstages: [{{stage: scale}}, {{stage: score, rows: 8}}]"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    asked = subprocess.run(
        [sys.executable, "-c", SCRIPT, "new.yaml"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    found = json.loads(asked.stdout)
    assert found["ran"] == [["scale"], ["score"], ["scale", "score"]]
    assert found["told"][-3] == "scale: done before"
    assert found["paths"] == ["recipe", "scaled"]
    assert found["scores"][0] == found["scores"][1]  # Restored, the model is as it was.
    assert found["norms"][1] / found["norms"][0] == pytest.approx(4 / 3)
    assert "after scaling" in found["journey"]
    assert not found["left_out"]
    assert (found["command"]["stage"], found["command"]["ran"]) == ("scale", ["scale"])
    assert "Multiply the weights of the task head" in found["help"]
