"""Repair: re-solve output and down projections after the cut, so that layers give what the dense layers gave.

A block that lost heads or neurons adds less to the residual stream. Its output and down projections are linear maps
that can compensate without training: each is re-solved by damped least squares on calibration rows, layer by layer,
from the pruned model's own inputs. The target is the dense model's residual stream after the projection, so that every
projection also corrects remaining errors of earlier layers. Labels are not used, unless a decoder reads them or tokens
are weighted by the loss.

For weights W (D, K) that are W0 after the cut, inputs x (K,), the pruned model's residual stream r (D,) before the
addition, and the dense model's residual stream r' + y' (D,) after it, over all real tokens::

    minimise  mean |r + W x + b - (r' + y')|^2 + damping * s * |W - W0|^2,    s = mean variance of the inputs
    y = r' + y' - r
    W = W0 + (S_yx - W0 S_xx) (S_xx + damping * s * I)^-1,        b = mean y - W mean x

with S the centred second moments. Tokens count equally, or by how much the loss or the task head's inputs depend on
them (`token_weights`). An
encoder-decoder's encoder is repaired first, then its decoder, which attends to the pruned encoder's output. The damping
of each projection is chosen by the error on a fifth of the rows, held out from the fit; the final fit uses all rows.

Memory does not grow with the rows: two hidden states of every row are kept between layers, in files above a limit.
Masks and positions are recorded again for every pass.

Related: least-squares reconstruction of channels (He, Zhang and Sun 2017) and mask tuning (Kwon et al. 2022). They fit
the projection's own outputs, without damping towards the old weights.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

import torch
from torch import nn

from prunelora.errors import DivergenceError, PlanError, one_of, option
from prunelora.importance.objectives import FEATURES, LOSS, Objective
from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.empty import BiasOnly
from prunelora.models.inputs import longest_input, random_inputs
from prunelora.models.matrices import widths
from prunelora.models.state import left_as_found
from prunelora.progress import over
from prunelora.pruning.hidden_states import HiddenStates
from prunelora.pruning.layer_inputs import InputRecorder, LayerInputs
from prunelora.pruning.layers import Layer, Projection, layers_of
from prunelora.pruning.layerwise import run_layer, run_to_projection, run_with_activations
from prunelora.pruning.least_squares import LeastSquares, Moments, chosen_damping, to_float64
from prunelora.pruning.token_weights import squared_gradients, token_weights

Batch = Mapping[str, Any]
Weights = Literal["equal", "loss", "features"]

# What tokens are weighted by.
_OBJECTIVES: Final[Mapping[str, Objective]] = {"loss": LOSS, "features": FEATURES}
# One row in this many is held out when the damping is chosen.
HELD_OUT_EVERY = 5
# Limit on hidden states in memory, and separately on recorded layer inputs; further states go to files.
MOST_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class RepairedProjection:
    """The repair of one projection.

    Attributes:
        name: Name within the whole model.
        damping: Best damping on the held-out rows; infinity means that only the bias is fitted. The old weights stay if
            it is no better than they are.
        error_before: Mean squared error of the outputs on the held-out rows, relative to the variance of the target.
        error_after: The same after a fit on the other rows.
    """

    name: str
    damping: float
    error_before: float
    error_after: float


@dataclass(frozen=True)
class Repair:
    """The repair of a model.

    Attributes:
        projections: In the order in which they were solved.
        rows: Number of calibration rows.
        tokens: Number of their real tokens.
    """

    projections: tuple[RepairedProjection, ...]
    rows: int
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON; an infinite damping is None."""
        content = asdict(self)
        for projection in content["projections"]:
            projection["damping"] = None if math.isinf(projection["damping"]) else projection["damping"]
        return content


def repair_(model: nn.Module, dense: nn.Module, batches: Iterable[Batch], *, weights: Weights = "equal") -> Repair:
    """Re-solve the output and down projections of a pruned model, in place, by the dense model's outputs.

    Args:
        model: After `prune_`.
        dense: The model before `prune_`, with the same blocks; it is not changed.
        batches: Dicts as `model(**batch)` takes them; labels are ignored, unless an encoder-decoder's decoder reads
            them. A few hundred training rows; they should hold more tokens than the projections are wide, or the old
            weights stay almost unchanged.
        weights: Weights of tokens: "equal", or by how much the "loss" or the "features" that the task head reads depend
            on them, which takes a backward pass of the dense model. The loss needs labels in every batch.

    Returns:
        The repair of every projection.

    Raises:
        PlanError: If there are fewer than five rows, of which one is held out, or the two models do not have the same
            blocks.
        ScoreError: If tokens are weighted by the loss, and a batch has no labels or its loss is not finite.
        DivergenceError: If an activation is not finite.
    """
    check_weights(weights)
    anatomy, dense_anatomy = dissect(model), dissect(dense)
    if len(anatomy.blocks) != len(dense_anatomy.blocks):
        raise PlanError(
            f"The model has {len(anatomy.blocks)} blocks and the dense one {len(dense_anatomy.blocks)}. Pass the model "
            "that it was pruned from."
        )
    with left_as_found(model), left_as_found(dense), torch.no_grad():
        model.eval()
        dense.eval()
        dense.requires_grad_(False)
        recorder = InputRecorder(dense_anatomy, list(batches), most_bytes=MOST_BYTES)
        real_tokens = [recorder.of(batch)[0].real for batch in range(len(recorder.batches))]
        num_rows = sum(map(len, real_tokens))
        if num_rows < HELD_OUT_EVERY:
            raise PlanError(
                f"Repair needs at least {HELD_OUT_EVERY} calibration rows, found {num_rows}. Pass a few hundred "
                "training rows."
            )
        squares = None
        if weights in _OBJECTIVES:
            squares = [
                squared_gradients(dense_anatomy, batch, number, _OBJECTIVES[weights])
                for number, batch in enumerate(recorder.batches)
            ]
        repaired: list[RepairedProjection] = []
        pairs = list(zip(layers_of(anatomy), layers_of(dense_anatomy), strict=True))
        with HiddenStates(MOST_BYTES) as states:
            for index, (layer, dense_layer) in enumerate(over(pairs, "repairing")):
                rows = _Rows(recorder, states, index)
                rows.start(anatomy)
                repaired += _repair_layer(layer, dense_layer, rows, squares)
    return Repair(tuple(repaired), num_rows, sum(int(real.sum()) for real in real_tokens))


def check_repairable(model: nn.Module) -> None:
    """Check on a few random tokens that a model can run layer by layer, as `repair_` runs it.

    Raises:
        UnsupportedModelError: If it cannot.
    """
    tokens = min(8, longest_input(model) or 8)
    inputs = random_inputs(model, batch_size=2, tokens=tokens, generator=torch.Generator().manual_seed(0))
    with left_as_found(model), torch.no_grad():
        model.eval()
        InputRecorder(dissect(model), [inputs], most_bytes=0).of(0)


def check_weights(weights: str) -> None:
    """Raises PlanError if there is no such way to weight tokens."""
    if weights not in get_args(Weights):
        raise PlanError(f"{option('repair_weights', weights)} is not known.{one_of(weights, get_args(Weights))}")


def repaired_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Output and down projections, which repair can change, by their names in `state_dict`."""
    prefixes = tuple(
        f"{projection.full_name}." for layer in layers_of(dissect(model)) for projection in layer.projections
    )
    return {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if name.startswith(prefixes)
    }


@dataclass(frozen=True)
class _Rows:
    """All rows before one layer: their hidden states in both models, and the layer's other inputs.

    Attributes:
        recorder: Inputs of every layer.
        states: By batch: "pruned" and "dense" (B, T, D), the hidden states of the two models, which advance with the
            layers; and "memory" (B, S, D), the pruned encoder's output, in a decoder.
        index: Index of the layer.
    """

    recorder: InputRecorder
    states: HiddenStates
    index: int

    def __iter__(self) -> Iterator[tuple[int, LayerInputs]]:
        """Batches with the layer's inputs."""
        return ((batch, self.recorder.of(batch)[self.index]) for batch in range(len(self.recorder.batches)))

    def start(self, anatomy: Anatomy) -> None:
        """Store the hidden states before the first layer of the model, or of its decoder."""
        for batch, inputs in self:
            if inputs.hidden is None:
                return  # It is None for all batches.
            if self.index:
                self.states.put("memory", batch, _encoded(anatomy, self.states.get("pruned", batch)))
            for name in ("pruned", "dense"):
                self.states.put(name, batch, inputs.hidden)

    def memory(self, batch: int) -> torch.Tensor | None:
        """The pruned encoder's output for a decoder's layer; None for other layers."""
        return self.states.get("memory", batch) if self.states.has("memory", batch) else None


def _encoded(anatomy: Anatomy, hidden: torch.Tensor) -> torch.Tensor:
    """The encoder's output (B, S, D) from the hidden states after its last layer."""
    norm = anatomy.family.last_norm
    if norm is None:
        return hidden
    encoded: torch.Tensor = anatomy.base.get_submodule(norm)(hidden)
    return encoded


def _repair_layer(
    layer: Layer, dense_layer: Layer, rows: _Rows, squares: Sequence[Mapping[str, torch.Tensor]] | None
) -> list[RepairedProjection]:
    """Solve all projections of a layer and advance the hidden states of all rows past it."""
    repaired = [
        _solve(projection, *_moments(layer, dense_layer, number, rows, squares))
        for number, projection in enumerate(layer.projections)
    ]
    for batch, inputs in rows:
        output = run_layer(layer, inputs, rows.states.get("pruned", batch), rows.memory(batch))
        rows.states.put("pruned", batch, output)
    return repaired


def _moments(
    layer: Layer, dense_layer: Layer, number: int, rows: _Rows, squares: Sequence[Mapping[str, torch.Tensor]] | None
) -> tuple[Moments, Moments]:
    """Moments of one projection on the rows of the fit and on the held-out rows.

    The dense layer runs again for each of its projections, because its activations for all rows are as large as the
    hidden states. At its last projection the dense hidden states advance past the layer.
    """
    projection, last = layer.projections[number], number == len(layer.projections) - 1
    moments: tuple[Moments, ...] = ()
    first_row = 0
    for batch, inputs in rows:
        real, dense_hidden = inputs.real, rows.states.get("dense", batch)
        if last:
            output, activations = run_with_activations(dense_layer, inputs, dense_hidden)
            rows.states.put("dense", batch, output)
            target = activations[number].total
        else:
            target = run_to_projection(dense_layer, number, inputs, dense_hidden).total
        pruned = run_to_projection(layer, number, inputs, rows.states.get("pruned", batch), rows.memory(batch))
        wanted = pruned.output_for(target)
        weights = real.to(torch.float32)
        if squares is not None:
            weights = token_weights(squares[batch][projection.full_name], real)
        if not moments:
            origins = _origins(projection, pruned.inputs[real], wanted[real])
            moments = Moments(*origins), Moments(*origins)
        row = torch.arange(first_row, first_row + len(real), device=real.device)
        held_out = (row % HELD_OUT_EVERY == HELD_OUT_EVERY - 1)[:, None]
        for sums, tokens in zip(moments, (real & ~held_out, real & held_out), strict=True):
            sums.add(pruned.inputs[tokens], wanted[tokens], weights[tokens])
        first_row += len(real)
    fitted, held = moments
    return fitted, held


def _origins(projection: Projection, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of the first batch's inputs (N, K) and wanted outputs (N, D); 0 without a bias."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    module: Any = projection.module
    if module.bias is None or not len(x):
        return x.new_zeros(x.shape[1], dtype=dtype), y.new_zeros(y.shape[1], dtype=dtype)
    return x.to(dtype).mean(0), y.to(dtype).mean(0)


def _solve(projection: Projection, fitted: Moments, held_out: Moments) -> RepairedProjection:
    """Choose the damping on the held-out rows, solve with all rows, and write the solution into the projection."""
    module: Any = projection.module
    out_features = widths(module)[1]
    empty = isinstance(module, BiasOnly)
    weight = torch.zeros(out_features, 0, dtype=torch.float64)
    if not empty:
        weight = to_float64(projection.block.matrix(projection.name).weight)
    with_bias = module.bias is not None
    bias = to_float64(module.bias) if with_bias else torch.zeros(out_features, dtype=torch.float64)
    damping = chosen_damping(weight, fitted, held_out, with_bias=with_bias)
    error_before = held_out.error(weight, bias)
    if not math.isfinite(error_before):
        raise DivergenceError(
            f"Repair: the inputs or the wanted outputs of {projection.full_name} are not finite. Check the dense "
            "model's weights, and that its dtype holds its activations: float16 overflows where bfloat16 and float32 "
            "do not."
        )
    error_after = held_out.error(*LeastSquares(fitted, weight, with_bias=with_bias).solve(damping))
    if error_after < error_before:
        new_weight, new_bias = LeastSquares(fitted + held_out, weight, with_bias=with_bias).solve(damping)
        if not empty:
            projection.block.matrix(projection.name).weight.copy_(new_weight)
        if with_bias:
            module.bias.copy_(new_bias)
    variance = max(held_out.variance, 1e-300)
    # Rounding can make an error of zero slightly negative.
    relative = (max(0.0, error) / variance for error in (error_before, min(error_after, error_before)))
    return RepairedProjection(projection.full_name, damping, *relative)
