"""Timing a cut model beside its dense model in the one place that a budget in time was asked for."""

import torch
from torch import nn

from prunelora.evaluation.latency_model import LatencySettings
from prunelora.evaluation.latency_sweep import forward, measured_device, resolved, threads_set
from prunelora.evaluation.measurement import Latency, synchronise
from prunelora.evaluation.timing import interleaved, ratio
from prunelora.models.inputs import random_inputs
from prunelora.models.state import left_as_found


def latency_at(
    model: nn.Module,
    base: nn.Module,
    settings: LatencySettings,
    *,
    repeats: int = 15,
    warmup: int = 3,
    max_seconds: float = 8.0,
) -> Latency:
    """Time a model and its dense base in turn, at the size, in the engine and with the threads of a latency budget.

    Args:
        model: The cut model.
        base: What it was cut from.
        settings: As the plan was made for.
        repeats: Rounds that are timed.
        warmup: Rounds that are not.
        max_seconds: Seconds after which there are no more rounds, though never fewer than five (or `repeats`).

    Raises:
        ExportError: If a model cannot be exported, for onnxruntime.
        MissingExtraError: If the packages of the extra "onnx" are not installed, for onnxruntime.
    """
    settings = resolved(settings, base)
    generator = torch.Generator().manual_seed(0)
    inputs = random_inputs(base, batch_size=settings.batch_size, tokens=settings.tokens, generator=generator)
    with left_as_found(model), left_as_found(base), threads_set(settings.threads):
        calls = {"model": forward(model.eval(), inputs, settings), "base": forward(base.eval(), inputs, settings)}
        with torch.inference_mode():
            timings = interleaved(
                calls,
                warmup=warmup,
                repeats=repeats,
                max_seconds=max_seconds,
                synchronise=synchronise(measured_device(base, settings)),
            )
    of_model, of_base = timings["model"], timings["base"]
    return Latency(settings.engine, settings.batch_size, settings.tokens, of_model, of_base, ratio(of_model, of_base))
