"""The two ways to walk with Torch-Pruning's cut: a recipe's stages, but for those from scoring to pruning."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from benchmarks.peers.torch_pruning_cut import History, cut_with_torch_pruning, replay_
from benchmarks.peers.walks import adapter_plan, as_recipe, cut_settings, split
from prunelora.comparison.results import TrialFacts
from prunelora.comparison.sharing import bring_over, run_folders
from prunelora.comparison.trials import FACTS, Trial
from prunelora.data.embedded import model_source
from prunelora.data.metrics import metrics
from prunelora.data.task import TaskData
from prunelora.data.tokens import calibration_batches, tokenise
from prunelora.delivery.checkpoints import load
from prunelora.delivery.processors import load_tokenizer
from prunelora.errors import RecipeError
from prunelora.evaluation.machine import describe_machine
from prunelora.evaluation.quality import evaluate, predict_rows
from prunelora.finetuning.adapter import merge
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.finetuning.training import finetune
from prunelora.models.device import best_device
from prunelora.pipeline import Tell, execute
from prunelora.recipe import digest
from prunelora.runfolder import RunFolder
from prunelora.running import pretrained, ready_to_train
from prunelora.stage_settings import FineTuneStage
from prunelora.storage import replacing_file, write_json
from prunelora.version import __version__

START, WEIGHTS, CUT, ANSWERS = "start", "model.safetensors", "cut.json", "answers.safetensors"


@dataclass(frozen=True)
class Walked:
    """A finished walk.

    Attributes:
        model: Merged, in eval mode.
        facts: As a comparison's cell has them.
        cut: Of the cut, for JSON.
        after_cut: Metrics on the validation rows right after the cut.
        history: Of the pruner.
    """

    model: Any
    facts: TrialFacts
    cut: dict[str, Any]
    after_cut: dict[str, float]
    history: History


def walk(cell: Trial, task: TaskData, *, share_with: Sequence[Path] = (), tell: Tell | None = None) -> Walked:
    """Do what a recipe says, with Torch-Pruning's cut in place of its own; what is finished is not repeated.

    Args:
        cell: Its recipe, seed and folder.
        task: Its data.
        share_with: Folders of comparisons: where a training there has done what comes before the cut, that is used.
        tell: Called with a line for every stage.

    Raises:
        RecipeError: If the recipe has something after its cut that this driver cannot do.
    """
    done = finished(cell, task)
    if done is not None:
        return done
    before, after = split(cell.recipe)
    tell = tell or (lambda _: None)
    model, seconds, steps = _before(cell, task, before, share_with, tell)
    work = _Work(cell, task, model, seconds)
    tell("torch-pruning ...")
    work.cut()
    last: dict[str, Any] = {}
    for name in after:
        tell(f"{name} ...")
        stage = cell.recipe.by_name[name]
        if isinstance(stage, FineTuneStage):
            last = work.finetune(name, stage)
            steps += last["steps"]
        elif stage.stage == "merge":
            work.merge(name)
        elif stage.stage != "evaluate":
            raise RecipeError(f"{cell}: stage {name!r} after the cut is not one that this driver knows.")
    facts = TrialFacts(
        method=cell.method.name,
        learning_rate=cell.learning_rate,
        seed=cell.seed,
        validation={name.removeprefix("validation_"): v for name, v in last["best"].items() if name != "step"},
        test=work.answers(),
        best_step=steps - last["steps"] + last["best_step"],
        steps=steps,
        step_ms=last["step_ms"],
        seconds=work.seconds,
        trained=last["trainable"],
        plan_id=None,
        recipe=as_recipe(cell.recipe),
        prunelora=__version__,
        machine=describe_machine(best_device()),
    )
    work.keep()
    # Last: with it the cell is finished.
    write_json(cell.folder / FACTS, facts.model_dump(mode="json"))
    return Walked(work.model, facts, work.cut_facts, work.after_cut, work.history)


def finished(cell: Trial, task: TaskData) -> Walked | None:
    """A walk that is done under the same recipe."""
    try:
        facts = TrialFacts.model_validate(json.loads((cell.folder / FACTS).read_text(encoding="utf-8")))
        kept = json.loads((cell.folder / CUT).read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        return None
    if facts.recipe != as_recipe(cell.recipe) or not (cell.folder / WEIGHTS).exists():
        return None
    return Walked(load_walked(cell, task), facts, kept["cut"], kept["after_cut"], kept["history"])


def load_walked(cell: Trial, task: TaskData) -> Any:
    """The model as `walk` left it: the dense one, cut again as the pruner's history says, with the weights."""
    history = json.loads((cell.folder / CUT).read_text(encoding="utf-8"))["history"]
    model = replay_(pretrained(cell.recipe, task), history, rows_of(cell, task))
    model.load_state_dict(load_file(cell.folder / WEIGHTS))
    return model.to(best_device()).eval()


def rows_of(cell: Trial, task: TaskData, *, rows: int = 8) -> dict[str, Any]:
    """A batch of a few training rows, to run the model on."""
    tokenizer = load_tokenizer(model_source(cell.recipe.model))
    length = cell.recipe.task.max_length
    return calibration_batches(task, tokenizer, rows=rows, batch_size=rows, max_length=length)[0]


class _Work:
    """The stages from the cut on, and what they hand on to each other."""

    def __init__(self, cell: Trial, task: TaskData, model: Any, seconds: dict[str, float]) -> None:
        self.cell, self.task, self.model, self.seconds = cell, task, model, dict(seconds)
        self.tokenizer = load_tokenizer(model_source(cell.recipe.model))
        self.score, self.plan = cut_settings(cell.recipe)
        self.cut_facts: dict[str, Any] = {}
        self.after_cut: dict[str, float] = {}
        self.history: History = []

    def cut(self) -> None:
        batches = calibration_batches(
            self.task,
            self.tokenizer,
            rows=self.score.rows,
            batch_size=self.score.batch_size,
            seed=self.cell.seed,
            max_length=self.cell.recipe.task.max_length,
        )
        if self.plan.keep_macs is None:
            raise RecipeError(f"{self.cell}: Torch-Pruning is given budgets in MACs here. Set plan.keep_macs.")
        cut = cut_with_torch_pruning(
            self.model, batches, keep_macs=self.plan.keep_macs, tokens=self.plan.tokens, round_to=self.plan.round_to
        )
        self.model, self.history, self.cut_facts = cut.model, cut.history, cut.to_dict()
        self.seconds |= cut.seconds
        self.after_cut = self._quality("validation")

    def finetune(self, name: str, settings: FineTuneStage) -> dict[str, Any]:
        if settings.distillation:
            raise RecipeError(f"{self.cell}: this driver has no teacher. Set {name}.distillation=0.")
        self.model = ready_to_train(
            self.model, adapter_plan(self.model, self.plan), settings, seed=self.cell.recipe.seed
        )
        folder = self.cell.folder / f".checkpoints-{name}"
        with self._timed(name, folder):
            result = finetune(
                self.model,
                self._tokenised("train"),
                self._tokenised("validation"),
                tokenizer=self.tokenizer,
                checkpoints=folder,
                seed=self.cell.recipe.seed,
                progress=False,
                main_metric=self.task.metrics[0],
                **settings.model_dump(include=set(FineTuneSettings.model_fields)),
            )
        shutil.rmtree(folder, ignore_errors=True)
        return result.to_dict()

    def merge(self, name: str) -> None:
        with self._timed(name):
            self.model = merge(self.model).eval()
        # The adapter's plan is of the cut model's own coordinates, which nothing else knows.
        vars(self.model).pop("prunelora_plan", None)

    def answers(self) -> dict[str, dict[str, float]]:
        """Metrics on the reported rows; the logits stay in the folder."""
        tensors, quality = {}, {}
        for name in self.task.reported:
            tokenised = self._tokenised(name)
            found, labels = predict_rows(self.model, tokenised, self.tokenizer), np.asarray(tokenised["labels"])
            quality[name] = metrics(found, labels, self.task.problem_type)
            tensors |= {f"{name}.logits": torch.from_numpy(found), f"{name}.labels": torch.from_numpy(labels)}
        with replacing_file(self.cell.folder / ANSWERS) as temporary:
            save_file(tensors, temporary)
        return quality

    def keep(self) -> None:
        with replacing_file(self.cell.folder / WEIGHTS) as temporary:
            save_file({name: one.cpu().contiguous() for name, one in self.model.state_dict().items()}, temporary)
        content = {"cut": self.cut_facts, "after_cut": self.after_cut, "history": self.history}
        write_json(self.cell.folder / CUT, content)

    def _tokenised(self, split: str) -> Any:
        return tokenise(self.task.split(split), self.tokenizer, max_length=self.cell.recipe.task.max_length)

    def _quality(self, split: str) -> dict[str, float]:
        return evaluate(self.model, self._tokenised(split), self.tokenizer, problem_type=self.task.problem_type)

    @contextlib.contextmanager
    def _timed(self, name: str, *unfinished: Path) -> Iterator[None]:
        """With what an earlier process spent on it before it was stopped, and what it left to go on from."""
        folder, key = RunFolder(self.cell.folder / START), digest({"walk": as_recipe(self.cell.recipe), "stage": name})
        with folder.working(f"torch-pruning-{name}", key, unfinished):
            yield
        self.seconds[name] = folder.spent(f"torch-pruning-{name}", key)


def _before(
    cell: Trial, task: TaskData, names: list[str], share_with: Sequence[Path], tell: Tell
) -> tuple[Any, dict[str, float], int]:
    """The model as it goes into the cut, seconds by stage, and optimiser steps: a run of the recipe up to there."""
    bring_over(cell.recipe, cell.folder / START, task, run_folders(share_with, cell.seed))
    if not names:
        return pretrained(cell.recipe, task), {}, 0
    outcome = execute(cell.recipe, cell.folder / START, until=names[-1], task=task, tell=tell, progress=False)
    folder = RunFolder(cell.folder / START)
    records = {name: folder.record(name) for name in names}
    merged = next((name for name in reversed(names) if name.startswith("merge")), None)
    model = load(folder.file(records[merged].files[0])) if merged else pretrained(cell.recipe, task)
    for name in names[names.index(merged) + 1 :] if merged else names:
        if not name.startswith("linear_probe"):
            raise RecipeError(f"{cell}: stage {name!r} before the cut leaves no plain model. Put 'merge' after it.")
        model.load_state_dict(load_file(folder.file(records[name].files[0])), strict=False)
    seconds = {name: outcome.results.stages[name]["seconds"] for name in names}
    steps = sum(outcome.results.facts(name).get("steps", 0) for name in names)
    return model.to(best_device()), seconds, steps
