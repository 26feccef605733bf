"""The paper's experiment: every method on every task."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prunelora.comparison.compare import compare
from prunelora.data.settings import DataSettings
from prunelora.errors import RecipeError, one_of, option
from prunelora.reproduction import paper
from prunelora.reproduction.presets import PRESETS
from prunelora.reproduction.results import Reproduction, TaskSettings, check_tasks, read, settings_kept
from prunelora.run.recipe import Recipe


def reproduce(
    *,
    out: Path | str,
    model: str = "minilm",
    data_dir: str | None = None,
    preset: str = "best",
    train_head: bool = True,
    tasks: Sequence[str] = paper.TASKS,
    seeds: Sequence[int] = (0, 1, 2),
    max_train_rows: Mapping[str, int] | None = None,
    epochs: float | Mapping[str, float] | None = None,
    notes: Mapping[str, str] | None = None,
    timing: bool = True,
    tell: Callable[[str], None] | None = None,
    progress: bool = True,
) -> Reproduction:
    """Compare full fine-tuning, LoRA, Prune-LoRA and random pruning on the paper's tasks.

    Every task is a comparison in `out`/TASK: finished trainings are not repeated, and a stopped task continues. The
    learning rate is chosen on validation rows cut from training, never on the reported rows.

    Args:
        out: Folder for everything.
        model: Pretrained model: a folder, a hub name ("bert-base-uncased" is the paper's), or "minilm".
        data_dir: Folder with a folder of files for each task; the hub if not given.
        preset: "paper" or "best"; see `presets`.
        train_head: Train the task head. The paper lists LoRA and LayerNorms only, which is False.
        tasks: Some of the paper's six.
        seeds: Of the runs; learning rates are tried on the first.
        max_train_rows: Maximum of training rows, by task.
        epochs: In place of the preset's, for all tasks or by task.
        notes: What differs from GLUE's official files, by task; the page shows it.
        timing: Time training steps and forward passes.
        tell: Called with a line for every task and trial.
        progress: Show progress bars.

    Returns:
        All results in `out`, those of earlier calls too.

    Raises:
        PruneLoraError: If model, data or options are wrong. Finished trials stay.
    """
    if preset not in PRESETS:
        raise RecipeError(f"{option('preset', preset)}: no preset of this name.{one_of(preset, PRESETS)}")
    max_train_rows, notes = max_train_rows or {}, notes or {}
    epochs_of = epochs if isinstance(epochs, Mapping) else dict.fromkeys(tasks, epochs)
    options = {"tasks": tasks, "max_train_rows": max_train_rows, "epochs": epochs_of, "notes": notes}
    for name, names in options.items():
        check_tasks(name, names)
    if not tasks:
        raise RecipeError(f"{option('tasks')}: no task was named. Use some of: {', '.join(paper.TASKS)}.")
    out, chosen = Path(out), PRESETS[preset]
    settings = chosen.changes | ({} if train_head else {"train_head": False})
    tell = tell or (lambda _: None)
    for number, task in enumerate(tasks, start=1):
        tell(f"task {number} of {len(tasks)}: {task}")
        rows = DataSettings(task=task, data_dir=data_dir, max_train_rows=max_train_rows.get(task))
        with settings_kept(out, task, TaskSettings(preset, train_head, notes.get(task, ""))):
            compare(
                base=Recipe(model=model, task=rows),
                methods=chosen.methods,
                seeds=tuple(seeds),
                factors=chosen.factors,
                changes=settings | ({} if epochs_of.get(task) is None else {"epochs": epochs_of[task]}),
                out=out / task,
                timing=timing,
                tell=tell,
                progress=progress,
            )
    return read(out)
