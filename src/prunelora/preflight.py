"""Early checks of a run: everything that can be refused before any work, for `run` and for `check` alike."""

from collections.abc import Iterator, Sequence

from prunelora.data import metrics
from prunelora.data.embedded import model_source
from prunelora.data.load import load_task
from prunelora.data.task import TaskData
from prunelora.delivery import onnx
from prunelora.errors import advice
from prunelora.finetuning import training
from prunelora.models.source import check_reads, check_source
from prunelora.recipe import Recipe
from prunelora.running import Run
from prunelora.stage_settings import FineTuneStage, PlanStage
from prunelora.stages import check_stages

# What was measured of it is in docs/ablation.md.
PAIRS = (
    "note: these are pairs of texts. A pretrained model may not have learnt yet what compares two texts, and what has "
    "not been learnt is not kept. Where much is cut, the recipe tune-first, which tunes before it cuts, gives better "
    "models of pairs"
)


def check_packages(recipe: Recipe, names: Sequence[str]) -> None:
    """Check the order of the stages, and that the packages which they need are installed.

    Args:
        recipe: The stages.
        names: Of the stages that are to be run.

    Raises:
        RecipeError: If a stage lacks another before it.
        MissingExtraError: If a package is missing; the message names the extra.
    """
    recipe.check()
    for name, stage in recipe.by_name.items():
        if name not in names:
            continue
        if stage.stage == "export":
            onnx.require_packages(onnx.WITHOUT_EXPORT)
        if isinstance(stage, PlanStage) and stage.needs_latency and stage.latency_engine == "onnxruntime":
            onnx.require_packages(f"Or plan for torch: {advice('latency_engine', 'torch')}.")
        if isinstance(stage, FineTuneStage):
            training.require_packages(stage)


def read_task(recipe: Recipe, task: TaskData | None = None) -> TaskData:
    """Read the recipe's data, and check that its metrics are installed and that the model reads such rows.

    Args:
        recipe: Names model and data.
        task: Its data, where the caller has read it already.

    Raises:
        CheckpointError: If the model's folder has no weights in safetensors.
        DataError: As the loading functions raise it.
        MissingExtraError: If the task's metrics need a package that is missing.
        UnsupportedModelError: If the model reads images and the rows are texts, or the other way round.
    """
    source = model_source(recipe.model)
    check_source(source)
    task = task or load_task(recipe.task)
    metrics.require_packages(task.problem_type, task.label_names)
    check_reads(source, images=task.of_images)
    return task


def notes(recipe: Recipe, task: TaskData) -> Iterator[str]:
    """Lines to print before the first stage: how the data was read, and what does not suit it."""
    yield from task.notes
    if recipe.cuts_untuned and task.is_pair:
        yield PAIRS


def check_model(run: Run, names: Sequence[str]) -> list[str]:
    """Check the rows of every split and the stages against the model, whose weights may be random.

    Args:
        run: With the dense model.
        names: Of the stages that are to be run.

    Returns:
        Lines to print: what is cut off of the rows, and whether the tokenizer may be another model's.

    Raises:
        PlanError: If the first plan's budget cannot be met.
        UnsupportedModelError: If the model cannot read a row, or cannot be repaired where that is asked.
        DataError: If the tokenizer has no padding token.
        ExportError: If it cannot be exported, where that is asked.
    """
    found = run.check_rows()
    check_stages(run, names)
    return [f"note: {note}" for note in found]
