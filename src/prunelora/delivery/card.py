"""The model card: what a saved folder is, from what, what was cut, and how to load it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from prunelora.delivery.adapter_base import BASE
from prunelora.planning.plan import Plan
from prunelora.storage import name_of, write_text

GONE = "What was cut is gone from the weights, not masked."


_NUMBERS = ["| what | value |", "|---|---|"]


def add_numbers(folder: Path, numbers: Mapping[str, Any]) -> None:
    """Put rows into the table of numbers of a saved model's card; a row of the same name is replaced.

    A card that a person has written anew, without that table, is left as it is.
    """
    path = folder / "README.md"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    heads = [place for place in range(len(lines)) if lines[place : place + 2] == _NUMBERS]
    if not heads:
        return
    start = end = heads[0] + 2
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
        folder: Of the model.
        model: What is saved; of an adapter, the model that carries it.
        plan: What was kept.
        kind: "model", "dense" or "adapter".
        auto: The Auto class of transformers that loads a model of this class.
        facts: Names to values, for a table.
        recipe: What it was made by, as YAML.
    """
    adapter, dense = kind == "adapter", kind == "dense"
    base = name_of(str(model.config.name_or_path or type(model).__name__))  # type: ignore[union-attr]
    what = "LoRA adapter for a pruned model" if adapter else "Pruned, fine-tuned model"
    cut, whole = plan.architecture, plan.base
    lines = [
        "---",
        "library_name: " + ("peft" if adapter else "transformers"),
        "tags: [prunelora, pruning, lora]",
        "---",
        "",
        f"# {what}",
        "",
        f"Made with prunelora from `{base}` ({type(model).__name__}): "
        f"{cut.heads_of(whole, heads='attention heads')} and {cut.total_neurons} of {whole.total_neurons} "
        f"feed-forward neurons stay. {'What was cut is 0.' if dense else GONE}",
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
            "Where prunelora is not installed, transformers builds it by the modelling file in this folder:",
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
            "That is the small model. At full size, with zeros, all that loads the base model loads this folder:",
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
            "The base is saved in `base/`, so PEFT loads it too where prunelora is not installed:",
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
            "`prunelora run --recipe FILE --out FOLDER` makes it again from this, with your own paths where a model or "
            "data were local:",
            "",
        ]
        lines += ["```yaml", *recipe.splitlines(), "```", ""]
    write_text(folder / "README.md", "\n".join(lines))
