"""Pieces of a run's work and the seconds of many of them: rows, passes, steps, layers, files.

The functions that a run calls are timed on random weights of the model's shapes, on a few batches with lengths of the
data's rows, and on a few layers if every layer does the same work.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

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
from prunelora.evaluation.extrapolation import Line, Pieces, Size, by_power, in_order
from prunelora.evaluation.memory import inference_memory
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

# Returns seconds once all pieces are timed.
Later = Callable[[], float]


class Work:
    """The pieces of a run.

    Attributes:
        pieces: Timed pieces.
        models: The dense model and the cut model ("cut"), in eval mode.
        lengths: Tokens of every row of a split, by its name.
        row_seconds: Seconds to tokenise a row and put it into a batch.
        copy_seconds: Seconds to copy the dense model.
        import_seconds: Additional seconds of the first export.
    """

    def __init__(
        self, model: nn.Module, plan: Plan | None, task: TaskData, processor: Processor, max_length: int, scratch: Path
    ) -> None:
        """Copy the dense model, whose weights may be random, cut a copy, and tokenise a sample of the rows."""
        self.model, self.task, self.scratch = model, task, scratch
        self.processor, self.max_length = processor, max_length
        self.pieces = Pieces()
        self.exported: dict[int, float] = {}  # Seconds, by layers.
        self.import_seconds = 0.0
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

    def line(self, key: str, rows: int, call_of: Callable[[Mapping[str, Any]], Callable[[], object]]) -> Line:
        """Add pieces for batches of two lengths."""
        names = [f"{key}, {length} tokens" for length in self.ends]
        for name, length in zip(names, self.ends, strict=True):
            if name not in self.pieces.calls:
                self.pieces.add(name, call_of(on_device(self.batch(rows, length), self.model)))
        return Line(rows, self.ends, (names[0], names[1]))

    def batch(self, rows: int, length: int) -> dict[str, torch.Tensor]:
        """Random rows of one length, with labels."""
        return random_batch(self.model, rows=rows, tokens=length)

    def passes(self, model: str, sizes: Sequence[Size]) -> Later:
        """Seconds of forward passes."""
        line = self.line(f"pass of {model}", ROWS, partial(partial, run_once, self.models[model]))
        return lambda: line.total(self.pieces, sizes)

    def judging(self, split: str, model: str) -> Later:
        """Seconds of tokenising a split and of a pass over it, sorted by length."""
        lengths = np.sort(self.lengths[split]).tolist()
        passes = self.passes(model, in_order(lengths, JUDGED))
        return lambda: passes() + len(lengths) * self.row_seconds

    def judging_bytes(self, *models: str) -> int:
        """Most memory of the forward passes of an evaluation."""
        batch = self.batch(JUDGED, self.longest)
        return max(inference_memory(self.models[model], batch) for model in models)

    def saving(self, count: float) -> Later:
        """Seconds of writing bytes to a file."""
        sample = {"": torch.zeros(4_000_000)}
        piece = self.pieces.add("16 MB saved", partial(save_file, sample, self.scratch / "sample.safetensors"))
        return lambda: count / 16e6 * self.pieces.seconds(piece)

    def leaving_out(self, model: nn.Module) -> Later:
        """Seconds of eliminating heads and neurons of every layer one after the other."""
        architecture = dissect(model).architecture
        kinds = [
            (architecture.num_heads, architecture.head_dim * architecture.queries_per_head),
            (architecture.num_neurons, 1),
        ]
        outputs = architecture.hidden_size
        parts: list[Later] = []
        for units, width in kinds:
            for groups in filter(None, set(units)):
                layers = units.count(groups)
                seconds = self._groups_left_out(groups, width, outputs)
                parts.append(partial(lambda layers, seconds: layers * seconds(), layers, seconds))
        return lambda: sum(part() for part in parts)

    def _groups_left_out(self, groups: int, width: int, outputs: int) -> Later:
        def piece(count: int) -> str:
            wide = torch.float32
            columns = count * width
            generator = torch.Generator().manual_seed(0)
            weight = torch.randn(outputs, columns, generator=generator, dtype=wide)
            moments, errors = torch.eye(columns, dtype=wide), torch.eye(outputs, dtype=wide)
            call = partial(elimination_costs, weight, moments, errors, width=width)
            return self.pieces.add(f"{count} groups of {width} left out of {outputs} x {columns}", call)

        if groups * width <= WIDE or groups < 8:
            whole = piece(groups)
            return lambda: self.pieces.seconds(whole)
        quarter, half = groups // 4, groups // 2
        small, large = piece(quarter), piece(half)
        return lambda: by_power((quarter, self.pieces.seconds(small)), (half, self.pieces.seconds(large)), groups)

    def exporting(self) -> Later:
        """Seconds of an export, linear in the layers: from exports of the first half of them, and of fewer."""
        layers = num_layers(self.models["dense"])
        few, more = max(1, layers // 6), math.ceil(layers / 2)
        if not self.exported:
            self._timed_export(few)
            cold = self.exported.pop(few)
            for count in {few, more}:
                self._timed_export(count)
            self.import_seconds = max(0.0, cold - self.exported[few])
        fewer, half = self.exported[few], self.exported[more]
        slope = max(0.0, (half - fewer) / (more - few)) if more > few else half
        return lambda: half + slope * (layers - more)

    def _timed_export(self, layers: int) -> None:
        """Time an export once, not in rounds: it takes long, and only Python works."""
        first = shallow(self.models["dense"], layers)
        started = time.perf_counter()
        onnx.export(first, self.scratch / f"{layers}.onnx")
        self.exported[layers] = time.perf_counter() - started

    def training(self, key: str, trained: Any, settings: FineTuneSettings, model: str) -> Later:
        """Seconds of a fine-tuning, with its evaluations and checkpoints.

        Args:
            key: Name of the stage.
            trained: The model with its adapter.
            settings: Settings of the fine-tuning.
            model: Name of the model without the adapter.
        """
        numbers = sum(parameter.numel() for parameter in trained.parameters() if parameter.requires_grad)
        trained.train()

        def call_of(batch: Mapping[str, Any]) -> Callable[[], object]:
            step = training_step(trained, [batch], settings)

            def call() -> None:
                with dropout_of(trained, settings.dropout):
                    step()

            return call

        line = self.line(f"step of {key}", settings.batch_size, call_of)
        train = self.lengths["train"]
        updates, every = settings.updates(len(train)), settings.updates_between_evaluations(len(train))
        epoch = _epoch(train, settings)
        in_all = [epoch[number % len(epoch)] for number in range(updates * settings.accumulation_steps)]
        evaluations = updates // every + (1 if settings.keep_start else 0)
        validation = self.lengths["validation"].tolist()
        # The Trainer evaluates rows in their order.
        evaluation = self.passes(model, in_order(validation, 2 * settings.batch_size))
        adapted = isinstance(trained, PeftModel)
        saved = 4 * numbers if adapted else weight_bytes(trained)
        saving = self.saving(max(1, updates // every) * (saved + 8 * numbers) + saved)
        teacher = self.judging("train", "dense") if settings.distillation else None
        rows = len(train) + len(validation)

        def seconds() -> float:
            taught = teacher() if teacher is not None else 0.0
            judged = evaluations * evaluation()
            return rows * self.row_seconds + line.total(self.pieces, in_all) + judged + saving() + taught

        return seconds

    def engines(self, size: Size) -> tuple[str, str]:
        """Add passes of the first layers in torch and in ONNX Runtime."""
        layers = max(self.exported)
        first = shallow(self.models["dense"], layers)
        opened = onnx.session(self.scratch / f"{layers}.onnx", threads=torch.get_num_threads())
        inputs = _unlabelled(self.batch(*size))
        return (
            self.pieces.add("first layers in torch", partial(run_once, first, inputs)),
            self.pieces.add("first layers in onnxruntime", partial(onnx.run, opened, inputs)),
        )


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


def _lists(model: nn.Module) -> list[str]:
    """Names of the lists that hold the layers."""
    parents = dict.fromkeys(block.prefix.rpartition(".")[0] for block in dissect(model).blocks)
    return [name for name in parents if isinstance(model.get_submodule(name), nn.ModuleList)]


def num_layers(model: nn.Module) -> int:
    """Layers of a model, of the longer half of an encoder-decoder; 1 if one layer is applied repeatedly."""
    return max((len(_list(model, name)) for name in _lists(model)), default=1)


def shallow(model: nn.Module, layers: int) -> nn.Module:
    """A copy with only the first layers."""
    model = copy.deepcopy(model)
    for name in _lists(model):
        model.set_submodule(name, nn.ModuleList(list(_list(model, name))[:layers]))
    return model


def _list(model: nn.Module, name: str) -> nn.ModuleList:
    return cast(nn.ModuleList, model.get_submodule(name))
