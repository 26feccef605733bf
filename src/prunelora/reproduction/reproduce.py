"""The paper's experiment: every method on every task, then the paper's numbers beside ours."""

import shlex
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
    command: str | None = None,
    timing: bool = True,
    tell: Tell | None = None,
    progress: bool = True,
    compare: Compare | None = None,
) -> Reproduction:
    """Compare full fine-tuning, LoRA, Prune-LoRA and random pruning on the paper's tasks.

    Every task is a comparison in `out`/TASK: what is finished is not repeated, and a stopped one goes on. The learning
    rate is chosen on validation rows cut from training, never on the reported rows.

    Args:
        out: Folder for everything.
        model: Pretrained model: a folder, a hub name ("bert-base-uncased" is the paper's), or "minilm".
        data_dir: Folder with a folder of files for each task; the hub where it is not given.
        preset: "paper" or "best"; see `presets`.
        train_head: Train the task head. The paper lists LoRA and LayerNorms only: False does as it says.
        tasks: Some of the paper's six.
        seeds: Of the runs; learning rates are tried on the first.
        max_train_rows: Most training rows, by task.
        epochs: In place of the preset's, for all tasks or by task.
        notes: What is special about a task's files, by task: it is shown wherever their numbers are.
        command: What the page says makes it again; made from the options if not given.
        timing: Time training steps and forward passes.
        tell: Called with a line for every task and cell.
        progress: Show progress bars.
        compare: What compares the methods on one task; `prunelora.comparison.compare.compare` if not given.

    Returns:
        Everything in `out`, tasks of earlier calls too.

    Raises:
        PruneLoraError: Of the kind that fits: model, data, options. Tasks and cells that are finished stay.
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
    command = command or _command(
        out=str(out), model=model, data_dir=data_dir, preset=preset, train_head=train_head, tasks=tasks, seeds=seeds,
        max_train_rows=max_train_rows or {}, epochs=epochs, notes=notes or {},
    )  # fmt: skip
    for number, task in enumerate(tasks, start=1):
        tell(f"task {number} of {len(tasks)}: {task}")
        settings = TaskSettings(preset, train_head=train_head, note=(notes or {}).get(task, ""), command=command)
        with settings_kept(out, task, settings):
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


def _command(
    *,
    out: str,
    model: str,
    data_dir: str | None,
    preset: str,
    train_head: bool,
    tasks: Sequence[str],
    seeds: Sequence[int],
    max_train_rows: Mapping[str, int],
    epochs: float | Mapping[str, float] | None,
    notes: Mapping[str, str],
) -> str:
    """The same as a command line."""
    words = ["prunelora", "reproduce", "--model", model, "--preset", preset]
    words += ["--data-dir", data_dir] if data_dir is not None else []
    words += [] if train_head else ["--no-train-head"]
    words += ["--tasks", ",".join(tasks)] if tuple(tasks) != paper.TASKS else []
    words += ["--seeds", ",".join(map(str, seeds))]
    words += ["--max-train-rows", _by_task(max_train_rows)] if max_train_rows else []
    if isinstance(epochs, Mapping):
        words += ["--epochs", _by_task(epochs)] if epochs else []
    elif epochs is not None:
        words += ["--epochs", f"{epochs:g}"]
    for task, note in notes.items():
        words += ["--note", f"{task}={note}"]
    return shlex.join([*words, "--out", out])


def _by_task(values: Mapping[str, float]) -> str:
    """In one option, since of one that is repeated the last alone counts: "rte=3,sst2=12000"."""
    return ",".join(f"{task}={value:.12g}" for task, value in values.items())
