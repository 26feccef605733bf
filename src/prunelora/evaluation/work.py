"""Pieces of a run's work and the seconds of many of them: rows, passes, steps, layers, files.

The functions that a run calls are timed on random weights of the model's shapes, on a few batches with lengths of the
data's rows, and on a few layers if every layer does the same work.
"""

import copy
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn
from transformers.trainer_pt_utils import get_length_grouped_indices

from prunelora.data.task import TaskData
from prunelora.data.tokens import Processor, batches, tokenise
from prunelora.delivery import onnx
from prunelora.evaluation.counting import weight_bytes
from prunelora.evaluation.extrapolation import Pieces, Seconds, Size, batch_seconds, by_power, in_order
from prunelora.evaluation.memory import inference_memory
from prunelora.evaluation.training_cost import step_memory
from prunelora.evaluation.training_step import random_batch, training_step
from prunelora.finetuning.contexts import dropout_of
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.importance.elimination import elimination_costs
from prunelora.models.anatomy import dissect
from prunelora.models.device import on_device
from prunelora.models.inputs import image_tokens
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_

# Rows of a split whose lengths represent all of its rows.
SAMPLED, SAMPLED_IMAGES = 1000, 64
# Rows of a timed forward pass, and of a forward pass of an evaluation.
ROWS, JUDGED = 32, 64
# For wider matrices, seconds of elimination follow from a quarter and a half of their width.
WIDE = 512


class Work:
    """The pieces of a run.

    Attributes:
        pieces: Timed pieces.
        models: The dense model and the cut model ("cut"), in eval mode.
        present: Name of the model before the next stage: "dense" or "cut".
        memory: Most bytes at once of the stages, by name, where they are counted.
        lengths: Tokens of every row of a split, by its name.
        row_seconds: Seconds to tokenise a row and put it into a batch.
        copy_seconds: Seconds to copy the dense model.
    """

    def __init__(
        self, model: nn.Module, plan: Plan | None, task: TaskData, processor: Processor, max_length: int, scratch: Path
    ) -> None:
        """Copy the dense model, whose weights may be random, cut a copy, and tokenise a sample of the rows."""
        self.model, self.task, self.scratch = model, task, scratch
        self.processor, self.max_length = processor, max_length
        self.pieces = Pieces()
        self.present = "dense"
        self.memory: dict[str, int] = {}
        started = time.perf_counter()
        self.models: dict[str, nn.Module] = {"dense": copy.deepcopy(model).eval()}
        self.copy_seconds = time.perf_counter() - started
        self.models["cut"] = self.models["dense"] if plan is None else prune_(copy.deepcopy(model).eval(), plan)
        self.row_seconds = 0.0
        self.lengths = {name: self._lengths(name) for name in ("train", "validation", *task.reported)}
        train = self.lengths["train"]
        low, high = (int(np.quantile(train, share)) for share in (0.1, 0.95))
        self.ends = (low, high) if high >= low + 4 else (high, high)
        self.longest = int(train.max())

    # Data -------------------------------------------------------------------------------------------------------------

    def _lengths(self, split: str) -> np.ndarray:
        """Tokens of every row after truncation; for many rows, those of a sample, repeated."""
        task, images = self.task, self.task.of_images
        rows = {"train": task.train, "validation": task.validation, **task.reported}[split]
        drawn = np.random.default_rng(0).permutation(len(rows))[: SAMPLED_IMAGES if images else SAMPLED]
        started = time.perf_counter()
        tokenised = tokenise(rows.select(drawn), self.processor, max_length=self.max_length)
        list(batches(tokenised, self.processor, batch_size=ROWS))
        if split == "train":
            self.row_seconds = (time.perf_counter() - started) / len(drawn)
        if images:
            return np.full(len(rows), image_tokens(self.model))
        return np.resize([len(ids) for ids in tokenised["input_ids"]], len(rows))

    def calibration(self, rows: int, batch_size: int) -> list[Size]:
        """Batches of a sample of training rows, sorted by length."""
        return in_order(np.sort(self.lengths["train"][:rows]).tolist(), batch_size)

    # Pieces -----------------------------------------------------------------------------------------------------------

    def batch(self, rows: int, length: int) -> dict[str, torch.Tensor]:
        """Random rows of one length, with labels."""
        return random_batch(self.model, rows=rows, tokens=length)

    def in_batches(
        self, key: str, rows: int, call_of: Callable[[Mapping[str, Any]], Callable[[], object]], sizes: Sequence[Size]
    ) -> Seconds:
        """Seconds of batches, from pieces for batches of two lengths."""
        timed = {
            length: self.pieces.add(f"{key}, {length} tokens", call_of(on_device(self.batch(rows, length), self.model)))
            for length in self.ends
        }
        return lambda: batch_seconds(rows, {length: seconds() for length, seconds in timed.items()}, sizes)

    def passes(self, model: str, sizes: Sequence[Size]) -> Seconds:
        """Seconds of forward passes."""
        return self.in_batches(f"pass of {model}", ROWS, partial(partial, run_once, self.models[model]), sizes)

    def one_pass(self, model: str, size: Size) -> Seconds:
        """Seconds of a forward pass of exactly this size."""
        call = partial(run_once, self.models[model], self.batch(*size))
        return self.pieces.add(f"pass of {model}, {size[0]} x {size[1]}", call)

    def judging(self, split: str, model: str) -> Seconds:
        """Seconds of tokenising a split and of a pass over it, sorted by length."""
        lengths = np.sort(self.lengths[split]).tolist()
        passes = self.passes(model, in_order(lengths, JUDGED))
        return lambda: passes() + len(lengths) * self.row_seconds

    def judging_bytes(self, *models: str) -> int:
        """Most memory of the forward passes of an evaluation."""
        batch = self.batch(JUDGED, self.longest)
        return max(inference_memory(self.models[model], batch) for model in models)

    def saving(self, count: float) -> Seconds:
        """Seconds of writing bytes to a file."""
        sample = {"": torch.zeros(4_000_000)}
        seconds = self.pieces.add("16 MB saved", partial(save_file, sample, self.scratch / "sample.safetensors"))
        return lambda: count / 16e6 * seconds()

    def elimination(self, model: nn.Module) -> Seconds:
        """Seconds of eliminating heads and neurons of every layer one after the other."""
        sizes = dissect(model).architecture
        head_width = sizes.head_dim * sizes.queries_per_head
        layers = Counter((heads, head_width) for heads in sizes.num_heads)
        layers += Counter((neurons, 1) for neurons in sizes.num_neurons)
        parts = [
            (count, self._elimination(groups, width, sizes.hidden_size))
            for (groups, width), count in layers.items()
            if groups
        ]
        return lambda: sum(count * seconds() for count, seconds in parts)

    def _elimination(self, groups: int, width: int, outputs: int) -> Seconds:
        """Seconds of eliminating the groups of one matrix."""

        def piece(count: int) -> Seconds:
            columns = count * width
            weight = torch.randn(outputs, columns, generator=torch.Generator().manual_seed(0))
            call = partial(elimination_costs, weight, torch.eye(columns), torch.eye(outputs), width=width)
            return self.pieces.add(f"elimination of {count} groups of {width} from {outputs} x {columns}", call)

        wide = groups * width > WIDE and groups >= 8
        timed = {count: piece(count) for count in ((groups // 4, groups // 2) if wide else (groups,))}
        return lambda: by_power({count: seconds() for count, seconds in timed.items()}, groups)

    @cached_property
    def export_seconds(self) -> tuple[float, float]:
        """Seconds of an export, and those that the first one needs in addition for imports.

        Exports are linear in the layers, and timed for the first half of them, and for fewer. They are timed once, not
        in rounds: they take long, and only Python works.
        """
        layers = num_layers(self.models["dense"])
        few, half = max(1, layers // 6), self._half
        first, fewer = self._export(few), self._export(few)
        more = self._export(half) if half > few else fewer
        a_layer = max(0.0, (more - fewer) / (half - few)) if half > few else more
        return more + a_layer * (layers - half), max(0.0, first - fewer)

    @property
    def _half(self) -> int:
        return math.ceil(num_layers(self.models["dense"]) / 2)

    def _export(self, layers: int) -> float:
        """Export the first layers; returns seconds."""
        model = shallow(self.models["dense"], layers)
        started = time.perf_counter()
        onnx.export(model, self.scratch / f"{layers}.onnx")
        return time.perf_counter() - started

    def training(self, stage: str, trained: Any, settings: FineTuneSettings, model: str) -> Seconds:
        """Seconds of a fine-tuning, with its evaluations and checkpoints; its memory is counted.

        Args:
            stage: Name of the stage.
            trained: The model with its adapter.
            settings: Settings of the fine-tuning.
            model: Name of the model without the adapter.
        """
        self.memory[stage] = step_memory(trained, settings, tokens=self.longest).total
        numbers = sum(parameter.numel() for parameter in trained.parameters() if parameter.requires_grad)
        trained.train()

        def call_of(batch: Mapping[str, Any]) -> Callable[[], object]:
            step = training_step(trained, [batch], settings)

            def call() -> None:
                with dropout_of(trained, settings.dropout):
                    step()

            return call

        train, validation = self.lengths["train"], self.lengths["validation"].tolist()
        updates, every = settings.updates(len(train)), settings.updates_between_evaluations(len(train))
        epoch = _epoch(train, settings)
        sizes = [epoch[number % len(epoch)] for number in range(updates * settings.accumulation_steps)]
        steps = self.in_batches(f"step of {stage}", settings.batch_size, call_of, sizes)
        evaluations = updates // every + (1 if settings.keep_start else 0)
        # The Trainer evaluates rows in their order.
        evaluation = self.passes(model, in_order(validation, 2 * settings.batch_size))
        saved = 4 * numbers if isinstance(trained, PeftModel) else weight_bytes(trained)
        saving = self.saving(max(1, updates // every) * (saved + 8 * numbers) + saved)
        tokenising = (len(train) + len(validation)) * self.row_seconds
        teacher = self.judging("train", "dense") if settings.distillation else lambda: 0.0
        return lambda: tokenising + steps() + evaluations * evaluation() + saving() + teacher()

    def onnx_over_torch(self, size: Size) -> Seconds:
        """Time in ONNX Runtime over that in torch, by the first layers, whose export `export_seconds` has written."""
        model = shallow(self.models["dense"], self._half)
        opened = onnx.session(self.scratch / f"{self._half}.onnx", threads=torch.get_num_threads())
        inputs = _unlabelled(self.batch(*size))
        in_torch = self.pieces.add("first layers in torch", partial(run_once, model, inputs))
        in_onnx = self.pieces.add("first layers in onnxruntime", partial(onnx.run, opened, inputs))
        return lambda: in_onnx() / in_torch()


def run_once(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> None:
    """Run a forward pass; labels are left out."""
    with torch.inference_mode():
        model(**on_device(_unlabelled(inputs), model))


def _unlabelled(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if name != "labels"}


def _epoch(lengths: np.ndarray, settings: FineTuneSettings) -> list[Size]:
    """Batches of one epoch, in the order in which the Trainer draws them."""
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0)).tolist()
    if settings.group_by_length:
        order = get_length_grouped_indices(
            lengths.tolist(),
            settings.batch_size * settings.accumulation_steps,
            generator=torch.Generator().manual_seed(0),
        )
    return in_order(lengths[order].tolist(), settings.batch_size)


# Copies with a few layers, whose cost times the layers is the cost of all -------------------------------------------


def first_layers(model: nn.Module, plan: Plan, count: int) -> nn.Module:
    """A model cut by a plan, in which only the first layers have heads and neurons."""
    empty = ((),) * (len(plan.heads) - count)
    thin = Plan(base=plan.base, heads=(*plan.heads[:count], *empty), neurons=(*plan.neurons[:count], *empty))
    return prune_(copy.deepcopy(model).eval(), thin)


def _lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """The lists that hold the layers, by name."""
    names = dict.fromkeys(block.prefix.rpartition(".")[0] for block in dissect(model).blocks)
    parents = {name: model.get_submodule(name) for name in names}
    return {name: layers for name, layers in parents.items() if isinstance(layers, nn.ModuleList)}


def num_layers(model: nn.Module) -> int:
    """Layers of a model, of the longer half of an encoder-decoder; 1 if one layer is applied repeatedly."""
    return max(map(len, _lists(model).values()), default=1)


def shallow(model: nn.Module, layers: int) -> nn.Module:
    """A copy with only the first layers."""
    model = copy.deepcopy(model)
    for name, whole in _lists(model).items():
        model.set_submodule(name, whole[:layers])
    return model
