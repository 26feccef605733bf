"""Costs of a model, data and a budget before any work, from a configuration and random weights of its shapes.

Sizes, bounds and whether the budget can be met are arithmetic (`outlook`); latency and training are measured.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from prunelora.data.embedded import model_source
from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.data.task import TaskData
from prunelora.data.tokens import tokenise
from prunelora.data.truncation import Truncation
from prunelora.delivery.processors import load_image_processor, load_tokenizer, size_made_by
from prunelora.errors import CheckpointError
from prunelora.evaluation.latency_cache import latency_model_for
from prunelora.evaluation.latency_sweep import check_tokens
from prunelora.evaluation.outlook import Outlook, RunOutlook, early_plan, outlook
from prunelora.evaluation.training_cost import Training, TrainingOutlook, training_outlook
from prunelora.models.anatomy import dissect
from prunelora.models.architecture import Architecture
from prunelora.models.device import best_device
from prunelora.models.inputs import give_images_of_, image_tokens, longest_input, reads_images
from prunelora.models.loading import describe_task_, give_padding_, read_config, task_class
from prunelora.models.problem_types import SINGLE_LABEL
from prunelora.planning.cost_tables import CostTable, macs_table, parameters_table
from prunelora.planning.costs import block_parameters
from prunelora.planning.latency_model import LatencySettings
from prunelora.planning.plan import Plan

# Options of make_plan that are a budget: numbers of heads and neurons, those that share one out, those in time.
COUNTS, _SHARES, _TIMES = ("keep_heads", "keep_ffn"), ("keep_macs", "keep_params"), ("max_latency_ms", "speedup")


@dataclasses.dataclass(frozen=True)
class Feasibility:
    """Costs of a model after the cut of a budget, and bounds for any cut.

    Attributes:
        architecture: Sizes of the dense encoder.
        budget: The options of the budget, such as {"keep_macs": 0.5}.
        left: Sizes after the cut by made-up scores; real scores distribute heads and neurons differently.
        tokens: Length of the inputs of MACs and latency.
        parameters: Of the whole model with its task head.
        block_parameters: Parameters in heads and neurons.
        macs: Of all blocks, for one example.
        latency: Of a forward pass, predicted from measurements on this device; None if not measured.
        latency_settings: Input and engine of the latency.
        latency_measured: Age of the measurements: "measured 3 hours ago (2026-11-30 20:05 UTC)".
        training: Cost of training; None if not measured.
        data: Rows, lengths and majority rates of the task data; None without data.
        plan: The cut by made-up scores.
        run: Cost of the run, stage by stage; None if not measured.
    """

    architecture: Architecture
    budget: dict[str, int | float]
    left: Architecture
    tokens: int
    parameters: Outlook
    block_parameters: Outlook
    macs: Outlook
    latency: Outlook | None = None
    latency_settings: LatencySettings | None = None
    latency_measured: str | None = None
    training: TrainingOutlook | None = None
    data: dict[str, Any] | None = None
    plan: Plan | None = None
    run: RunOutlook | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        settings = self.latency_settings
        return {
            "architecture": dataclasses.asdict(self.architecture),
            "budget": self.budget,
            "heads_left": self.left.total_heads,
            "neurons_left": self.left.total_neurons,
            "tokens": self.tokens,
            "parameters": self.parameters.to_dict(),
            "block_parameters": self.block_parameters.to_dict(),
            "macs": self.macs.to_dict(),
            "latency": self.latency.to_dict() if self.latency else None,
            "latency_settings": settings.model_dump() if settings else None,
            "latency_measured": self.latency_measured,
            "training": self.training.to_dict() if self.training else None,
            "run": self.run.to_dict() if self.run else None,
            "data": self.data,
        }


def check(
    model: str,
    *,
    data: DataSettings | None = None,
    rows: TaskData | None = None,
    cut: Truncation | None = None,
    tokens: int = 128,
    latency: LatencySettings | None = None,
    remeasure: bool = False,
    training: Training | None = None,
    tell: Callable[[str], None] | None = None,
    **planning: Any,
) -> Feasibility:
    """Compute the costs of a budget for a model; only its configuration is read, no weights.

    Args:
        model: Folder, hub name, or "minilm".
        data: Task data, and how a run reads it; none if not given.
        rows: Result of `load_task(data)`, if the caller has it already.
        cut: Truncation of the training rows, if the caller has tokenised them already.
        tokens: Length of the inputs of MACs and of the memory of a training step.
        latency: Input and engine whose latency is predicted by measurements on this device, which are kept; needed
            only for a budget in milliseconds or as a speedup.
        remeasure: Measure latency again even if it was kept.
        training: How the model is trained, to count and time a step: by full fine-tuning, by LoRA on the dense model
            and by LoRA after the cut; by full fine-tuning of both, if all weights are trained. Needs a training's own
            memory.
        tell: Called with lines on progress.
        planning: Options of `make_plan`.

    Raises:
        PlanError: If the budget has no meaning for the model or cannot be met; the message names a feasible one.
        UnsupportedModelError: If the family is not supported, or a budget in time is for inputs longer than the model
            has positions for. Latency that no budget needs is measured for the longest inputs instead.
        CheckpointError, DataError: As the loading functions raise them.
    """
    tell = tell or (lambda _: None)
    config = read_config(model_source(model))
    facts = None
    if data is not None:
        rows = rows or load_task(data)
        if cut is None and not rows.of_images:
            cut = _cut_off(rows, data.max_length, model_source(model))
        facts = _data_facts(rows, cut, config)
    kind = task_class(config, facts["problem_type"] if facts else SINGLE_LABEL, model)
    give_padding_(config)
    with torch.device("meta"):
        shell = kind.from_config(config, dtype=torch.float32)  # As a run loads it.
    if reads_images(shell):
        _set_image_size(shell, model_source(model))
        tokens = image_tokens(shell)
    whole = dissect(shell).architecture
    num_parameters = sum(parameter.numel() for parameter in shell.parameters())
    in_time = any(planning.get(name) is not None for name in _TIMES)
    asked = latency or (LatencySettings(tokens=tokens) if in_time else None)
    longest = longest_input(shell)
    readable = tokens if longest is None else min(tokens, longest)
    if asked is not None and not in_time and longest is not None:  # No plan needs it.
        asked = asked.model_copy(update={"tokens": min(asked.tokens, longest)})
    if asked is not None:
        check_tokens(longest, asked)

    def plan(table: CostTable | None) -> Plan:
        return early_plan(whole, num_parameters=num_parameters, tokens=tokens, latency=table, **planning)

    # An infeasible budget is an error before any measurement.
    chosen = None if in_time else plan(None)
    dense = _random_model(kind, config) if asked or training else shell
    measured = latency_model_for(dense, asked, remeasure=remeasure, tell=tell) if asked else None
    table = measured.table() if measured else None
    chosen = chosen or plan(table)
    left = chosen.architecture
    trained = None
    if training is not None:
        tell("counting and timing training steps ...")
        trained = training_outlook(
            dense,
            chosen,
            training,
            tokens=readable,
            step_tokens=_step_tokens(facts, data, dense),
            train_rows=facts["rows"]["train"] if facts else None,
        )
    return Feasibility(
        architecture=whole,
        budget={name: planning[name] for name in (*COUNTS, *_SHARES, *_TIMES) if planning.get(name) is not None},
        left=left,
        tokens=tokens,
        parameters=outlook(parameters_table(whole, fixed=num_parameters - block_parameters(whole)), left),
        block_parameters=outlook(parameters_table(whole), left),
        macs=outlook(macs_table(whole, tokens=tokens), left),
        latency=outlook(table, left) if table else None,
        latency_settings=measured.settings if measured else None,
        latency_measured=measured.when() if measured else None,
        training=trained,
        data=facts,
        plan=chosen,
    )


def _cut_off(rows: TaskData, max_length: int, tokenizer_source: str) -> Truncation:
    tokenizer = load_tokenizer(tokenizer_source, words=rows.by_word)
    tokenised = tokenise(rows.train, tokenizer, max_length=max_length)
    return Truncation.of(rows.train, tokenised, tokenizer, max_length=max_length)


def _data_facts(rows: TaskData, cut: Truncation | None, config: Any) -> dict[str, Any]:
    """Numbers of rows and their lengths; writes the labels into the configuration."""
    describe_task_(config, label_names=rows.label_names, problem_type=rows.problem_type)
    splits = {"train": rows.train, "validation": rows.validation} | rows.reported
    return {
        "rows": {name: len(split) for name, split in splits.items()},
        "median_tokens": cut.median_tokens if cut else None,
        "truncation": cut.to_dict() if cut else None,
        "majority_rate": rows.majority_rate,
        "majority_rates": rows.majority_rates,
        "problem_type": rows.problem_type,
    }


def _set_image_size(model: nn.Module, source: str) -> None:
    """Set the size of images as the processor makes them, or leave it as configured if there is no processor."""
    with contextlib.suppress(CheckpointError):
        give_images_of_(model, size_made_by(load_image_processor(source)))


def _random_model(kind: Any, config: Any) -> nn.Module:
    """A model with random weights, the same every time: neither time nor memory depends on their values."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = kind.from_config(config, dtype=torch.float32)
    return model.to(best_device())


def _step_tokens(facts: dict[str, Any] | None, source: DataSettings | None, model: nn.Module) -> int | None:
    """Median length of the data's rows after truncation; None without data and for images."""
    if facts is None or source is None or not facts["median_tokens"]:
        return None
    return min(round(facts["median_tokens"]), source.max_length, longest_input(model) or source.max_length)
