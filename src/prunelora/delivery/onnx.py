"""Export to ONNX, held to the model's own logits before anybody is told that it worked."""

import contextlib
import importlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunelora.errors import ExportError, MissingExtraError, first_line
from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.device import on_device
from prunelora.models.family import Family
from prunelora.models.inputs import input_names, longest_input, random_inputs, reads_images
from prunelora.models.state import left_as_found

# A protobuf file cannot be larger than 2 GiB; some room is left for the graph.
LARGEST_SINGLE_FILE_BYTES = 1_900_000_000

# For errors of a run that cannot export.
WITHOUT_EXPORT = "Or run without the export: prunelora run --no-export; in Python compress(export=False)."

# (batch, sequence) of the traced example, and of the random examples that are compared.
_TRACED = (2, 8)
_COMPARED = ((1, 5), (3, 16), (4, 27))


def export(
    model: nn.Module,
    path: Path | str,
    *,
    batch: Mapping[str, Any] | None = None,
    tolerance: float = 1e-3,
    opset: int | None = None,
) -> Path:
    """Write the model as ONNX, with batch size and sequence length left open, and check it against torch.

    Inputs are `input_ids`, `attention_mask` and, where the family's tokenizer makes them, `token_type_ids`; or
    `pixel_values`, of which only the batch size is left open. The output is `logits`. Before the call returns,
    onnxruntime runs the file on examples of several shapes, with padding, and its logits are compared with the model's.
    The file appears at `path` only if they agree. The model is left as it was found.

    Args:
        model: A sequence or image classification model of a supported family, pruned or not, in float32 and without an
            adapter.
        path: File to write. Weights are inside it, except above 2 GB, where they go to `<path>.data` beside it.
        batch: A real batch as `model(**batch)` takes it, to be compared too.
        tolerance: Largest absolute difference between any two logits that still counts as the same.
        opset: ONNX operator set; the exporter's choice if not given.

    Returns:
        `path`.

    Raises:
        ExportError: If the exported model gives other logits, is of another operator set, or cannot be exported or run.
        MissingExtraError: If the packages of the extra "onnx" are not installed.
        UnsupportedModelError: If the model's family is not supported, or it carries an adapter.
    """
    require_packages()
    path = Path(path)
    _check(dissect(model), path)
    with left_as_found(model), torch.no_grad():
        model.eval()
        traced, *examples = _random_examples(model)
        if batch is not None:
            examples.append(_inputs_of(batch, input_names(model)))
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own, as weights above 2 GB make a second file whose name is written inside the first.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            _write(model, traced, temporary, opset)
            if opset is not None:
                _check_opset(temporary, opset)
            _compare(model, temporary, examples, tolerance)
            for written in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):
                written.replace(path.with_name(written.name))  # the model itself last
    return path


def require_packages(way_out: str = "") -> None:
    """Check that everything `export` needs is installed; a run asks before it trains.

    Args:
        way_out: For the error's message: how the caller's work can be done without ONNX.

    Raises:
        MissingExtraError: If the packages of the extra "onnx" are not installed.
    """
    for name in ("onnx", "onnxruntime", "onnxscript"):
        _required(name, way_out)


def session(path: Path | str, *, threads: int | None = None) -> Any:
    """Open an exported model with onnxruntime on the CPU.

    Args:
        path: The exported file.
        threads: Threads a run uses; onnxruntime's choice if not given.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        ExportError: If the file cannot be opened.
        MissingExtraError: If onnxruntime is not installed.
    """
    onnxruntime = _required("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    # Threads that go on spinning after a run would take the cores from whatever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no base but Exception
        raise ExportError(
            f"{path}: onnxruntime cannot open it ({first_line(error)}). Export the model again."
        ) from error


def run(opened: Any, inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
    """Logits (B, C) of a session for inputs on any device; what the exported model does not read is left out."""
    taken = {one.name for one in opened.get_inputs()}
    arrays = {name: value.cpu().numpy() for name, value in inputs.items() if name in taken}
    return np.asarray(opened.run(["logits"], arrays)[0])


class _LogitsOnly(nn.Module):
    """The model as a function of positional tensors, as the exporter wants it."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def check_family(family: Family) -> None:
    """See that export is known to be right for a family.

    Raises:
        ExportError: If it is not.
    """
    if not family.onnx:
        raise ExportError(
            f"{family.title} cannot be exported: the graph that torch makes of it is right for one size of batch "
            f"alone. {WITHOUT_EXPORT} The merged model needs no export."
        )


def _check(anatomy: Anatomy, path: Path) -> None:
    model = anatomy.model
    check_family(anatomy.family)
    if path.is_dir():
        raise ExportError(f"{path} is a folder. Give the name of a file in it, such as {path / 'model.onnx'}.")
    dtypes = sorted({str(p.dtype) for p in model.parameters() if p.is_floating_point()})
    if dtypes != ["torch.float32"]:
        raise ExportError(
            f"The model's weights are {', '.join(dtypes)}; ONNX export is for torch.float32, which onnxruntime runs "
            "everywhere. Call model.float() first."
        )
    if anatomy.base is model:
        raise ExportError(f"{type(model).__name__} has no task head. Export a sequence classification model.")


def _random_examples(model: nn.Module) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    longest = longest_input(model) or max(tokens for _, tokens in _COMPARED)
    return [
        random_inputs(model, batch_size=size, tokens=min(tokens, longest), generator=generator, padded=True)
        for size, tokens in (_TRACED, *_COMPARED)
    ]


def _inputs_of(batch: Mapping[str, Any], names: Sequence[str]) -> dict[str, torch.Tensor]:
    if names[0] not in batch:
        raise ExportError(
            f"batch has no {names[0]}: its keys are {sorted(batch)}. Pass a batch as model(**batch) takes it."
        )
    if "input_ids" not in names:
        return {name: torch.as_tensor(batch[name]) for name in names}
    ids = torch.as_tensor(batch["input_ids"])
    # What `model(**batch)` fills in itself when it is not given.
    missing = {"attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return {name: torch.as_tensor(batch.get(name, missing.get(name))) for name in names}


def _write(model: nn.Module, inputs: Mapping[str, torch.Tensor], path: Path, opset: int | None) -> None:
    weight_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    open_axes = {0: "batch"} if reads_images(model) else {0: "batch", 1: "sequence"}
    try:
        with _eager_attention(model), _quiet():
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
    except Exception as error:  # the exporter raises whatever its passes meet
        raise ExportError(
            f"{type(model).__name__} cannot be exported: torch.onnx.export raised {type(error).__name__} "
            f"({first_line(error)}). Is this model's logits output a single tensor, and opset={opset} one that "
            f"torch {torch.__version__} writes?"
        ) from error


def _check_opset(path: Path, opset: int) -> None:
    # Where it cannot convert what it made, the exporter writes another operator set and says nothing.
    opsets = _required("onnx").load(str(path), load_external_data=False).opset_import
    found = next(one.version for one in opsets if one.domain in ("", "ai.onnx"))
    if found != opset:
        raise ExportError(
            f"opset={opset} was asked, and torch {torch.__version__} writes this model with opset {found}. Nothing was "
            f"written. Use opset={found}, or leave it out."
        )


@contextlib.contextmanager
def _eager_attention(model: nn.Module) -> Iterator[None]:
    """Plain matrix products and a softmax: the smallest graph, and the one onnxruntime runs fastest."""
    found = model.config._attn_implementation  # type: ignore[union-attr]
    model.set_attn_implementation("eager")  # type: ignore[operator]
    try:
        yield
    finally:
        model.set_attn_implementation(found)  # type: ignore[operator]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from talking: of packages and of deprecations within torch, which nobody here can act on."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with (
            warnings.catch_warnings(),
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _compare(model: nn.Module, path: Path, examples: Sequence[Mapping[str, torch.Tensor]], tolerance: float) -> None:
    opened = session(path)
    for inputs in examples:
        shape = tuple(next(iter(inputs.values())).shape)
        wanted = model(**on_device(inputs, model)).logits.float().cpu().numpy()
        try:
            found = run(opened, inputs)
        except Exception as error:  # onnxruntime's own errors share no base but Exception
            raise ExportError(
                f"The exported model does not run on input of shape {shape}: {first_line(error)}. Nothing was written."
            ) from error
        if found.shape != wanted.shape:
            raise ExportError(
                f"The exported model gives logits of shape {found.shape} for input of shape {shape}, torch gives "
                f"{wanted.shape}. Nothing was written."
            )
        difference = float(np.abs(found - wanted).max())
        if not difference <= tolerance:  # NaN is a difference too
            raise ExportError(
                f"The exported model's logits differ from torch's by up to {difference:.3g} on input of shape "
                f"{shape}, and tolerance={tolerance:g} was asked. Nothing was written. Pass a larger tolerance if the "
                "logits are large, else report this model."
            )


def _required(name: str, way_out: str = "") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("ONNX export", "onnx", way_out) from error
