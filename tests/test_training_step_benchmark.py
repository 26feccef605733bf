"""The docs' and the README's figures of a training step are those of the committed result."""

import json
from pathlib import Path

from benchmarks.training_step import REFERENCE, ROOT, SELECTIVE, VARIANTS, table

RESULT = ROOT / "benchmarks" / "results" / "training_step.json"


def test_the_table_of_the_docs_is_made_from_the_result():
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert list(result["steps"]) == list(VARIANTS)
    page = Path(ROOT / "docs" / "finetuning.md").read_text(encoding="utf-8")
    assert "\n".join(table(result)) in page


def test_the_readme_has_its_figures():
    steps = json.loads(RESULT.read_text(encoding="utf-8"))["steps"]
    before, after = f"dense, {SELECTIVE}, half of the rows", f"cut, {SELECTIVE}"
    stock, half, cut = (steps[name]["counted_bytes"] / 1e6 for name in (REFERENCE, before, after))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"| {stock:.0f} MB, 32 rows, by PEFT alone |" in readme
    assert f"| {half:.0f} MB before the cut (16 rows, two steps an update), {cut:.0f} MB after it (32 rows) |" in readme
