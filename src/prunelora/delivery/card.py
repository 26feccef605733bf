"""The model card of a saved folder: its base model, what was pruned, and how to load it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from prunelora.delivery.adapter_base import BASE
from prunelora.planning.plan import Plan
from prunelora.storage import name_of, write_text

_NUMBERS = ["| what | value |", "|---|---|"]


def add_numbers(folder: Path, numbers: Mapping[str, Any]) -> None:
    """Add rows to the table of numbers in a saved model's card; rows of the same names are replaced.

    A card without this table, such as an edited one, is not changed.
    """
    path = folder / "README.md"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    headers = [number for number in range(len(lines)) if lines[number : number + 2] == _NUMBERS]
    if not headers:
        return
    start = end = headers[0] + 2
    while end < len(lines) and lines[end].startswith("| "):
        end += 1
    kept = [line for line in lines[start:end] if not any(line.startswith(f"| {name} |") for name in numbers)]
    rows = [f"| {name} | {value} |" for name, value in numbers.items()]
    write_text(path, "\n".join([*lines[:start], *kept, *rows, *lines[end:], ""]))


def write_card(
    folder: Path,
    model: nn.Module,
    plan: Plan,
    *,
    kind: str,
    auto: str,
    facts: Mapping[str, Any],
    recipe: str | None = None,
) -> None:
    """Write README.md into a folder that is being saved.

    Args:
        folder: Folder of the model.
        model: The saved model; the base model of an adapter.
        plan: The plan of the model.
        kind: "model", "dense" or "adapter".
        auto: The Auto class of transformers for this class of model.
        facts: Rows of the table of numbers: names to values.
        recipe: The run's recipe, as YAML.
    """
    adapter, dense = kind == "adapter", kind == "dense"
    base = name_of(str(model.config.name_or_path or type(model).__name__))  # type: ignore[union-attr]
    title = "LoRA adapter for a pruned model" if adapter else "Pruned, fine-tuned model"
    kept, whole = plan.architecture, plan.base
    lines = [
        "---",
        "library_name: " + ("peft" if adapter else "transformers"),
        "tags: [prunelora, pruning, lora]",
        "---",
        "",
        f"# {title}",
        "",
        f"Made with prunelora from `{base}` ({type(model).__name__}): "
        f"{kept.heads_of(whole, heads='attention heads')} and {kept.total_neurons} of {whole.total_neurons} "
        f"feed-forward neurons are kept. The weights of the others are {'0' if dense else 'removed, not masked'}.",
        "",
        "## Load",
        "",
        "```python",
        "import prunelora as pl",
        "",
        f'model = pl.load("path/of/this/folder")  # a {"peft.PeftModel" if adapter else type(model).__name__}',
        "```",
        "",
    ]
    if kind == "model":
        lines += [
            "Without prunelora, transformers loads it with the modelling file in this folder:",
            "",
            "```python",
            f"from transformers import {auto}",
            "",
            f'model = {auto}.from_pretrained("path/of/this/folder", trust_remote_code=True)',
            "```",
            "",
        ]
    if dense:
        lines += [
            "This is the small model. Tools that load the base model load this folder at full size, with zeros:",
            "",
            "```python",
            f"from transformers import {auto}",
            "",
            f'model = {auto}.from_pretrained("path/of/this/folder")',
            "```",
            "",
        ]
    if adapter and (folder / BASE).is_dir():
        lines += [
            "Without prunelora, PEFT loads it on the base in `base/`:",
            "",
            "```python",
            "from peft import PeftModel",
            f"from transformers import {auto}",
            "",
            f'base = {auto}.from_pretrained("path/of/this/folder/base", trust_remote_code=True)',
            'model = PeftModel.from_pretrained(base, "path/of/this/folder")',
            "```",
            "",
        ]
    if facts:
        lines += ["## Numbers", "", *_NUMBERS]
        lines += [f"| {name} | {value} |" for name, value in facts.items()]
        lines += [""]
    lines += ["## Plan", "", "```", str(plan), "```", ""]
    if recipe is not None:
        lines += [
            "## Recipe",
            "",
            "`prunelora run --recipe FILE --out FOLDER` repeats the run with this file; replace paths of local models "
            "and data by your own:",
            "",
        ]
        lines += ["```yaml", *recipe.splitlines(), "```", ""]
    write_text(folder / "README.md", "\n".join(lines))
