"""Traces a model into an ONNX file with the batch size and the sequence length left open."""

import contextlib
import inspect
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from prunelora.delivery.rotary import rotary_by_length
from prunelora.errors import ExportError, first_line
from prunelora.models.device import on_device
from prunelora.models.inputs import reads_images

# A protobuf file cannot exceed 2 GiB; the rest is room for the graph.
LARGEST_SINGLE_FILE_BYTES = 1_900_000_000


def write_graph(model: nn.Module, inputs: Mapping[str, torch.Tensor], path: Path, opset: int | None) -> None:
    """Trace a model on example inputs and write the file.

    Raises:
        ExportError: If the exporter fails, or writes another operator set than `opset`.
    """
    weight_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    open_axes = {0: "batch"} if reads_images(model) else {0: "batch", 1: "sequence"}
    try:
        with _eager_attention(model), rotary_by_length(model), _quiet():
            torch.onnx.export(
                _LogitsOnly(model, tuple(inputs)).eval(),
                tuple(on_device(inputs, model).values()),
                str(path),
                input_names=list(inputs),
                output_names=["logits"],
                dynamic_shapes=(tuple(open_axes for _ in inputs),),
                opset_version=opset,
                dynamo=True,
                external_data=weight_bytes > LARGEST_SINGLE_FILE_BYTES,
                verbose=False,
            )
    except Exception as error:  # The exporter raises errors of many types.
        raise ExportError(
            f"{type(model).__name__} cannot be exported: torch.onnx.export raised {type(error).__name__} "
            f"({first_line(error)}). Is this model's logits output a single tensor, and opset={opset} one that "
            f"torch {torch.__version__} writes?"
        ) from error
    if opset is not None:
        _check_opset(path, opset)


def clean(path: Path, metadata: Mapping[str, str]) -> None:
    """Remove shapes and metadata that the exporter wrote beside the graph, and add other metadata.

    Some shapes between layers are those of the traced example, on which tools that infer shapes fail, such as
    onnxruntime's quantisation. The exporter's metadata have names of folders on this machine.
    """
    model = onnx.load(str(path), load_external_data=False)
    del model.graph.value_info[:]
    parts = (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer)
    for part in parts:
        del part.metadata_props[:]
    for function in model.functions:
        del function.metadata_props[:], function.value_info[:]
        for node in function.node:
            del node.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, str(path))


class _LogitsOnly(nn.Module):
    """The model as a function of positional tensors that returns the logits, for the exporter."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)
        self.counts_positions = _counts_positions(model)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        named = dict(zip(self.names, inputs, strict=True))
        if self.counts_positions:
            # The model itself slices a table to min(512, sequence), which shape inference cannot equate to sequence.
            named["position_ids"] = torch.arange(inputs[0].shape[1], device=inputs[0].device).unsqueeze(0)
        return self.model(**named).logits


def _counts_positions(model: nn.Module) -> bool:
    """Whether the positions of tokens are 0, 1, 2, ..., whatever the tokens are."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    tables = [module for module in model.modules() if isinstance(getattr(module, "position_ids", None), torch.Tensor)]
    # RoBERTa and MPNet count only tokens that are not padding.
    return bool(tables) and all(
        getattr(getattr(module, "position_embeddings", None), "padding_idx", None) is None for module in tables
    )


def _check_opset(path: Path, opset: int) -> None:
    # If it cannot convert the graph, the exporter silently writes another operator set.
    opsets = onnx.load(str(path), load_external_data=False).opset_import
    written = next(entry.version for entry in opsets if entry.domain in ("", "ai.onnx"))
    if written != opset:
        raise ExportError(
            f"opset={opset} is not possible: torch {torch.__version__} writes this model with opset {written}. Nothing "
            f"was written. Use opset={written}, or leave it out."
        )


@contextlib.contextmanager
def _eager_attention(model: nn.Module) -> Iterator[None]:
    """Attention as matrix products and a softmax, whose graph is the smallest and fastest in onnxruntime."""
    implementation = model.config._attn_implementation  # type: ignore[union-attr]
    model.set_attn_implementation("eager")  # type: ignore[operator]
    try:
        yield
    finally:
        model.set_attn_implementation(implementation)  # type: ignore[operator]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's messages on packages and on deprecations within torch."""
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    try:
        with (
            warnings.catch_warnings(),
            Path(os.devnull).open("w", encoding="utf-8") as devnull,
            contextlib.redirect_stdout(devnull),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
