"""Export to ONNX, and the comparison of the exported model's logits with torch's."""

import contextlib
import importlib
import inspect
import itertools
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunelora.delivery.examples import Example, example_of, random_examples, traced_example
from prunelora.delivery.rotations import rotations_by_length, rotations_left_as_found
from prunelora.errors import ExportError, MissingExtraError, first_line
from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.device import on_device
from prunelora.models.family import Family
from prunelora.models.inputs import reads_images
from prunelora.models.state import left_as_found

# A protobuf file cannot be larger than 2 GiB; some room is left for the graph.
LARGEST_SINGLE_FILE_BYTES = 1_900_000_000

# For errors of a run that cannot export.
WITHOUT_EXPORT = "Or run without the export: prunelora run --no-export; in Python compress(export=False)."

# Keys of the file's metadata.
COMPARED_TOKENS, COMPARED_ROWS = "prunelora.compared_tokens", "prunelora.compared_rows"


def export(
    model: nn.Module,
    path: Path | str,
    *,
    batch: Mapping[str, Any] | None = None,
    batches: Iterable[Mapping[str, Any]] = (),
    tolerance: float = 1e-3,
    opset: int | None = None,
) -> Path:
    """Write the model as ONNX, with batch size and sequence length left open, and check it against torch.

    Inputs are `input_ids`, `attention_mask` and, where the family's tokenizer makes them, `token_type_ids`; or
    `pixel_values`, of which only the batch size is left open. The output is `logits`. Before the call returns,
    onnxruntime runs the file, and its logits are compared with the model's: on `batch` and `batches`, and on random
    inputs of one row and of several, of one token up to the longest that the model reads, and on both sides of every
    length at which it changes (sliding windows, rotations). They are padded on the right and, where the task head does
    not read the first place, on the left. Inputs of more than 4,096 tokens, and those whose attention scores take more
    than 1 GiB and more memory than the weights, are left out; the file's metadata say which lengths were compared. The
    file appears at `path` only if all logits agree. The model is left as it was found.

    Args:
        model: A sequence or image classification model of a supported family, pruned or not, in float32 and without an
            adapter.
        path: File to write. Weights are inside it, except above 2 GB, where they go to `<path>.data` beside it.
        batch: A real batch as `model(**batch)` takes it, to be compared too.
        batches: More of them. All that a batch holds goes to the model in torch, `labels` excepted.
        tolerance: Largest absolute difference between any two logits that still counts as the same. With infinity
            nothing but short inputs is run.
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
    with left_as_found(model), rotations_left_as_found(model) as reset_rotations, torch.no_grad():
        model.eval()
        real = [example_of(one, model) for one in (*(() if batch is None else (batch,)), *batches)]
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own, as weights above 2 GB make a second file whose name is written inside the first.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            reset_rotations()
            _write(model, traced_example(model), temporary, opset)
            if opset is not None:
                _check_opset(temporary, opset)
            examples = itertools.chain(random_examples(model, short=math.isinf(tolerance)), real)
            agreed = _compare(model, temporary, examples, tolerance, reset_rotations)
            _clean(temporary, _lengths_compared(agreed) | {COMPARED_ROWS: str(sum(one.shape[0] for one in real))})
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


def compared(path: Path | str) -> dict[str, Any]:
    """What the logits of an exported model were compared on: lengths of random inputs, and how many rows of the task.

    Returns:
        "compared_tokens", sorted, of inputs with any; and "compared_rows".
    """
    file = _required("onnx").load(str(path), load_external_data=False)
    about = {entry.key: entry.value for entry in file.metadata_props}
    lengths = [int(length) for length in about.get(COMPARED_TOKENS, "").split()]
    rows = {"compared_rows": int(about.get(COMPARED_ROWS, 0))}
    return {"compared_tokens": lengths} | rows if lengths else rows


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
        self.counts_positions = _counts_positions(model)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        if self.counts_positions:
            # By itself the model takes a slice of a table, whose length, min(512, sequence), tools that infer shapes
            # cannot tell from sequence.
            given["position_ids"] = torch.arange(inputs[0].shape[1], device=inputs[0].device).unsqueeze(0)
        return self.model(**given).logits


def _counts_positions(model: nn.Module) -> bool:
    """Whether the model gives tokens the positions 0, 1, 2, ... of a table, whatever the tokens are."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    tables = [module for module in model.modules() if isinstance(getattr(module, "position_ids", None), torch.Tensor)]
    # RoBERTa and MPNet count the tokens that are no padding.
    return bool(tables) and all(
        getattr(getattr(module, "position_embeddings", None), "padding_idx", None) is None for module in tables
    )


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


def _write(model: nn.Module, inputs: Mapping[str, torch.Tensor], path: Path, opset: int | None) -> None:
    weight_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    open_axes = {0: "batch"} if reads_images(model) else {0: "batch", 1: "sequence"}
    try:
        with _eager_attention(model), rotations_by_length(model), _quiet():
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


def _clean(path: Path, about: Mapping[str, str]) -> None:
    """Replace what the exporter wrote beside the graph itself.

    The shapes between layers are partly those of the traced example, which makes tools that infer shapes, such as
    onnxruntime's quantisation, stop. The metadata have names of folders on this machine.
    """
    onnx = _required("onnx")
    model = onnx.load(str(path), load_external_data=False)
    del model.graph.value_info[:]
    parts = (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer)
    for part in parts:
        del part.metadata_props[:]
    for function in model.functions:
        del function.metadata_props[:], function.value_info[:]
        for node in function.node:
            del node.metadata_props[:]
    onnx.helper.set_model_props(model, dict(about))
    onnx.save(model, str(path))


def _lengths_compared(examples: Iterable[Example]) -> dict[str, str]:
    lengths = {one.shape[1] for one in examples if "input_ids" in one.inputs}
    return {COMPARED_TOKENS: " ".join(map(str, sorted(lengths)))} if lengths else {}


def _compare(
    model: nn.Module,
    path: Path,
    examples: Iterable[Example],
    tolerance: float,
    reset_rotations: Callable[[], None],
) -> list[Example]:
    """Compare the file's logits with the model's on every example; returns the examples."""
    opened = session(path)
    agreed = []
    for example in examples:
        what = f"{example.kind} of shape {example.shape}"
        reset_rotations()
        wanted = model(**on_device(example.given, model)).logits.float().cpu().numpy()
        try:
            found = run(opened, example.inputs)
        except Exception as error:  # onnxruntime's own errors share no base but Exception
            raise ExportError(
                f"The exported model does not run on {what}: {first_line(error)}. Nothing was written."
            ) from error
        if found.shape != wanted.shape:
            raise ExportError(
                f"The exported model gives logits of shape {found.shape} for {what}, torch gives {wanted.shape}. "
                "Nothing was written."
            )
        differences = np.abs(found - wanted)
        if wanted.ndim == 3 and "attention_mask" in example.inputs:
            differences = differences[example.inputs["attention_mask"].numpy() > 0]  # What padding gives is not read.
        difference = float(differences.max())
        if not difference <= tolerance:  # NaN is a difference too
            raise ExportError(
                f"The exported model's logits differ from torch's by up to {difference:.3g} on {what}, and "
                f"tolerance={tolerance:g} was asked. Nothing was written. {_reason(example)}"
            )
        agreed.append(example)
    return agreed


def _reason(example: Example) -> str:
    """What may be done about a difference."""
    unread = sorted(example.given.keys() - example.inputs.keys())
    if unread:
        return (
            f"The rows hold {', '.join(unread)} too, which the model in torch reads and the exported one does not "
            f"(its inputs are {', '.join(example.inputs)}). Make the rows without them, with the tokenizer of the "
            "model's family, and train on those."
        )
    return "Pass a larger tolerance if the logits are large, else report this model."


def _required(name: str, way_out: str = "") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("ONNX export", "onnx", way_out) from error
