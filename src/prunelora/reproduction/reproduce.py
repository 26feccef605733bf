"""The paper's experiment: every method on every task."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prunelora.comparison.results import ComparisonResults
from prunelora.data.settings import DataSettings
from prunelora.errors import RecipeError, option
from prunelora.reproduction import paper
from prunelora.reproduction.presets import preset_of
from prunelora.reproduction.results import Reproduction, TaskSettings, check_tasks, read, settings_kept
from prunelora.run.recipe import Recipe

Tell = Callable[[str], None]
Compare = Callable[..., ComparisonResults]


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
    tell: Tell | None = None,
    progress: bool = True,
    compare: Compare | None = None,
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
        compare: Compares the methods on one task; `prunelora.comparison.compare.compare` if not given.

    Returns:
        All results in `out`, those of earlier calls too.

    Raises:
        PruneLoraError: If model, data or options are wrong. Finished trials stay.
    """
    chosen = preset_of(preset)
    tell = tell or (lambda _: None)
    for name, names in (
        ("tasks", tasks),
        ("max_train_rows", max_train_rows or ()),
        ("epochs", epochs if isinstance(epochs, Mapping) else ()),
        ("notes", notes or ()),
    ):
        check_tasks(name, names)
    if not tasks:
        raise RecipeError(f"{option('tasks')}: no task was named. Use some of: {', '.join(paper.TASKS)}.")
    if compare is None:
        from prunelora.comparison.compare import compare as compare_methods

        compare = compare_methods
    out = Path(out)
    for number, task in enumerate(tasks, start=1):
        tell(f"task {number} of {len(tasks)}: {task}")
        with settings_kept(out, task, TaskSettings(preset, train_head=train_head, note=(notes or {}).get(task, ""))):
            compare(
                base=Recipe(
                    model=model,
                    task=DataSettings(task=task, data_dir=data_dir, max_train_rows=(max_train_rows or {}).get(task)),
                ),
                methods=chosen.methods,
                seeds=tuple(seeds),
                factors=chosen.factors,
                changes=chosen.settings(
                    train_head=train_head, epochs=epochs.get(task) if isinstance(epochs, Mapping) else epochs
                ),
                out=out / task,
                timing=timing,
                tell=tell,
                progress=progress,
            )
    return read(out)
