"""The docs' and the README's figures of a training step are those of the committed result."""

import json

from benchmarks.training_step import ALLOCATORS, HALF, REFERENCE, RESULT, ROOT, SELECTIVE, VARIANTS, table


def test_the_table_of_the_docs_is_made_from_the_result():
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert list(result["steps"]) == list(VARIANTS)
    page = (ROOT / "docs" / "finetuning.md").read_text(encoding="utf-8")
    assert "\n".join(table(result)) in page


def test_the_readme_has_its_figures():
    steps = json.loads(RESULT.read_text(encoding="utf-8"))["steps"]
    names = REFERENCE, HALF, f"cut, {SELECTIVE}"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    stock, half, cut = (f"{steps[name]['counted_bytes'] / 1e6:,.0f} MB" for name in names)
    split = "before the cut (16 rows, two steps an update)"
    assert f"| {stock}, 32 rows, by PEFT alone | {half} {split}, {cut} after it (32 rows) |" in readme
    way = next(iter(ALLOCATORS))
    peaks = [steps[name]["peak_bytes_above_loaded_model"][way] for name in names]
    stock, half, cut = (f"{peak / 1e6:,.0f} MB" for peak in peaks)
    assert f"| {stock} | {half} before the cut, {cut} after it |" in readme
