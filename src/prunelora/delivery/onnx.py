"""Export to ONNX, with a comparison of the exported model's logits with torch's."""

import importlib
import itertools
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunelora.delivery.export_inputs import Example, example_of, random_examples, traced_example
from prunelora.delivery.onnx_packages import WITHOUT_EXPORT, require_packages
from prunelora.delivery.rotary import rotary_restored
from prunelora.errors import ExportError, MissingExtraError, first_line
from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.device import on_device
from prunelora.models.family import Family
from prunelora.models.state import left_as_found

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
    """Write the model as ONNX, with open batch size and sequence length, and compare it with torch.

    Inputs are `input_ids`, `attention_mask` and, if the family's tokenizer makes them, `token_type_ids`; or
    `pixel_values`, with only the batch size open. The output is `logits`. onnxruntime runs the file, and its logits are
    compared with the model's on `batch` and `batches`, and on random inputs: of one row and of several, from one token
    to the longest input of the model, and on both sides of every length at which the model changes (sliding windows,
    rotary embeddings). Random inputs are padded on the right and, if the task head does not read the first position,
    on the left. Inputs above 4,096 tokens are not compared, nor inputs whose attention scores exceed both 1 GiB and
    the size of the weights; the file's metadata list the compared lengths. The file is written to `path` only if all
    logits agree. The model is not changed.

    Args:
        model: A sequence or image classification model of a supported family, pruned or not, in float32 and without an
            adapter.
        path: File to write. Weights above 2 GB go to `<path>.data` beside it.
        batch: A real batch as `model(**batch)` takes it, which is compared too.
        batches: Further batches. The model in torch gets everything in a batch except `labels`.
        tolerance: Largest absolute difference between logits that is accepted. With infinity only short inputs run.
        opset: ONNX operator set; the exporter's choice if not given.

    Returns:
        `path`.

    Raises:
        ExportError: If the exported model gives other logits, has another operator set, or cannot be exported or run.
        MissingExtraError: If the packages of the extra "onnx" are not installed.
        UnsupportedModelError: If the model's family is not supported, or the model has an adapter.
    """
    require_packages()
    from prunelora.delivery import onnx_graph  # Imports the extra's packages.

    path = Path(path)
    _check(dissect(model), path)
    with left_as_found(model), rotary_restored(model) as reset_rotary, torch.no_grad():
        model.eval()
        real = [example_of(rows, model) for rows in (*(() if batch is None else (batch,)), *batches)]
        path.parent.mkdir(parents=True, exist_ok=True)
        # In a folder, because the name of the second file for weights above 2 GB is written into the first.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            reset_rotary()
            onnx_graph.write_graph(model, traced_example(model), temporary, opset)
            examples = itertools.chain(random_examples(model, short=math.isinf(tolerance)), real)
            compared_examples = _compare(model, temporary, examples, tolerance, reset_rotary)
            num_rows = sum(example.shape[0] for example in real)
            onnx_graph.clean(temporary, _compared_lengths(compared_examples) | {COMPARED_ROWS: str(num_rows)})
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):
                file.replace(path.with_name(file.name))  # The model itself last.
    return path


def session(path: Path | str, *, threads: int | None = None) -> Any:
    """Open an exported model with onnxruntime on the CPU.

    Args:
        path: The exported file.
        threads: Threads of a run; onnxruntime's choice if not given.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        ExportError: If the file cannot be opened.
        MissingExtraError: If onnxruntime is not installed.
    """
    onnxruntime = _required("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors only.
    # Threads that keep spinning after a run would slow down whatever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base class.
        raise ExportError(
            f"{path}: onnxruntime cannot open it ({first_line(error)}). Export the model again."
        ) from error


def compared(path: Path | str) -> dict[str, Any]:
    """Inputs on which an exported model was compared with torch.

    Returns:
        "compared_tokens", the sorted lengths, if its inputs are tokens; and "compared_rows", the number of real rows.
    """
    file = _required("onnx").load(str(path), load_external_data=False)
    metadata = {entry.key: entry.value for entry in file.metadata_props}
    lengths = [int(length) for length in metadata.get(COMPARED_TOKENS, "").split()]
    rows = {"compared_rows": int(metadata.get(COMPARED_ROWS, 0))}
    return {"compared_tokens": lengths} | rows if lengths else rows


def run(opened: Any, inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
    """Logits (B, C) of a session for inputs on any device; inputs that the exported model lacks are ignored."""
    names = {entry.name for entry in opened.get_inputs()}
    arrays = {name: value.cpu().numpy() for name, value in inputs.items() if name in names}
    return np.asarray(opened.run(["logits"], arrays)[0])


def check_family(family: Family) -> None:
    """Raises ExportError if a family cannot be exported."""
    if not family.onnx:
        raise ExportError(
            f"{family.title} cannot be exported: torch's graph of it is correct for one batch size only. "
            f"{WITHOUT_EXPORT} The merged model needs no export."
        )


def _check(anatomy: Anatomy, path: Path) -> None:
    model = anatomy.model
    check_family(anatomy.family)
    if path.is_dir():
        raise ExportError(f"{path} is a folder. Give the name of a file in it, such as {path / 'model.onnx'}.")
    dtypes = sorted({str(parameter.dtype) for parameter in model.parameters() if parameter.is_floating_point()})
    if dtypes != ["torch.float32"]:
        raise ExportError(
            f"The model's weights are {', '.join(dtypes)}; ONNX export needs torch.float32. Call model.float() first."
        )
    if anatomy.base is model:
        raise ExportError(f"{type(model).__name__} has no task head. Export a sequence classification model.")


def _compared_lengths(examples: Iterable[Example]) -> dict[str, str]:
    lengths = {example.shape[1] for example in examples if "input_ids" in example.inputs}
    return {COMPARED_TOKENS: " ".join(map(str, sorted(lengths)))} if lengths else {}


def _compare(
    model: nn.Module,
    path: Path,
    examples: Iterable[Example],
    tolerance: float,
    reset_rotary: Callable[[], None],
) -> list[Example]:
    """Compare the file's logits with the model's on every example; returns the examples."""
    opened = session(path)
    compared_examples = []
    for example in examples:
        description = f"{example.kind} of shape {example.shape}"
        reset_rotary()
        expected = model(**on_device(example.torch_inputs, model)).logits.float().cpu().numpy()
        try:
            logits = run(opened, example.inputs)
        except Exception as error:  # onnxruntime's errors have no common base class.
            raise ExportError(
                f"The exported model does not run on {description}: {first_line(error)}. Nothing was written."
            ) from error
        if logits.shape != expected.shape:
            raise ExportError(
                f"The exported model gives logits of shape {logits.shape} for {description}, torch gives "
                f"{expected.shape}. Nothing was written."
            )
        differences = np.abs(logits - expected)
        if expected.ndim == 3 and "attention_mask" in example.inputs:
            differences = differences[example.inputs["attention_mask"].numpy() > 0]  # Logits of padding are not used.
        difference = float(differences.max())
        if not difference <= tolerance:  # Also true for NaN.
            raise ExportError(
                f"The exported model's logits differ from torch's by up to {difference:.3g} on {description}, more "
                f"than tolerance={tolerance:g}. Nothing was written. {_advice(example)}"
            )
        compared_examples.append(example)
    return compared_examples


def _advice(example: Example) -> str:
    """What to do about a difference."""
    unread = sorted(example.torch_inputs.keys() - example.inputs.keys())
    if unread:
        return (
            f"The rows also have {', '.join(unread)}, which the model in torch reads and the exported one does not "
            f"(its inputs are {', '.join(example.inputs)}). Tokenise the rows with the tokenizer of the model's family "
            "and train on those."
        )
    return "Pass a larger tolerance if the logits are large; otherwise report this model."


def _required(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("ONNX export", "onnx") from error
