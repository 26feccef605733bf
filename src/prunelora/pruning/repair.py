"""Repair: after the cut, output and down projections are solved anew, so that blocks give what the dense ones gave.

A block that lost heads or neurons adds less into the residual stream. Its output projection, and then its down
projection, are the two linear maps that can make up for it without any training: each is re-solved by damped least
squares on calibration rows, layer by layer, from the pruned model's own inputs. What is wanted is the dense model's
residual stream behind the projection, so that every projection also corrects what the layers before it still get wrong.
Labels are not used, unless a decoder reads them or tokens are weighed by the loss.

For weights W (D, K) that were W0 after the cut, inputs x (K,), the pruned model's residual stream r (D,) that the
projection's output is added to, and the dense model's r' + y' (D,) behind the addition, over all real tokens::

    minimise  mean |r + W x + b - (r' + y')|^2 + damping * s * |W - W0|^2,    s = mean variance of the inputs
    y = r' + y' - r
    W = W0 + (S_yx - W0 S_xx) (S_xx + damping * s * I)^-1,        b = mean y - W mean x

with S the centred second moments. The mean is over all tokens alike, or over tokens that count by how much the loss
depends on them (`token_weights`). An encoder-decoder's encoder comes first; then its decoder, which attends to what the
pruned encoder gives. The damping is chosen for every projection, by the error on a fifth of the rows, which the fit has
not seen; then all rows are used.

Memory does not grow with the rows: between two layers two hidden states of every row are kept, in files beyond a limit,
and masks and positions are made again for every pass.

The same idea, towards the projection's own outputs alone, without the damping towards the old weights and without
choosing it: least-squares reconstruction of channels (He, Zhang and Sun 2017) and mask tuning (Kwon et al. 2022).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from prunelora.errors import DivergenceError, PlanError, one_of, option
from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.empty import BiasOnly
from prunelora.models.inputs import longest_input, random_inputs
from prunelora.models.matrices import widths
from prunelora.models.state import left_as_found
from prunelora.progress import over
from prunelora.pruning.calls import Call, LayerCalls
from prunelora.pruning.layers import Layer, Projection, layers_of
from prunelora.pruning.layerwise import run_layer, run_up_to, run_with_parts
from prunelora.pruning.least_squares import LeastSquares, Moments, chosen_damping, exact
from prunelora.pruning.states import States
from prunelora.pruning.token_weights import squared_gradients, token_weights

Batch = Mapping[str, Any]
Weights = Literal["equal", "loss"]

# One row in so many is held out when the damping is chosen.
HELD_OUT_EVERY = 5
# Of the rows' hidden states that are held in memory, and of their calls where these are kept; more states go to files.
MOST_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class RepairedProjection:
    """What repair did to one projection.

    Attributes:
        name: Within the whole model.
        damping: The one that did best on the held-out rows; infinity where only the bias was corrected. Where it did no
            better than the old weights, these have stayed.
        error_before: Mean squared error of its outputs on the held-out rows, relative to the variance of those wanted.
        error_after: The same with the fit on the other rows.
    """

    name: str
    damping: float
    error_before: float
    error_after: float


@dataclass(frozen=True)
class Repair:
    """What repair did.

    Attributes:
        projections: In the order they were solved.
        rows: Calibration rows.
        tokens: Real tokens among them.
    """

    projections: tuple[RepairedProjection, ...]
    rows: int
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON; an infinite damping is None."""
        content = asdict(self)
        for one in content["projections"]:
            one["damping"] = None if math.isinf(one["damping"]) else one["damping"]
        return content


def repair_(model: nn.Module, dense: nn.Module, batches: Iterable[Batch], *, weights: Weights = "equal") -> Repair:
    """Re-solve the output and down projections of a pruned model, in place, by the dense model's outputs.

    Args:
        model: After `prune_`.
        dense: The model it was cut from, with the same blocks; it is not changed.
        batches: Dicts as `model(**batch)` takes them; labels are ignored, unless an encoder-decoder's decoder reads
            them. A few hundred training rows; more tokens than the projections are wide, or the old weights stay nearly
            as they are.
        weights: How tokens count: "equal", or by the "loss", which takes a backward pass of the dense model and needs
            labels in every batch.

    Returns:
        What was done to every projection.

    Raises:
        PlanError: If there are fewer than five rows, of which one is held out, or the two models do not have the same
            blocks.
        ScoreError: If tokens are to count by the loss, and a batch has no labels or its loss is not finite.
        DivergenceError: If an activation is not finite.
    """
    check_weights(weights)
    anatomy, original = dissect(model), dissect(dense)
    if len(anatomy.blocks) != len(original.blocks):
        raise PlanError(
            f"The model has {len(anatomy.blocks)} blocks and the dense one {len(original.blocks)}. Pass the model that "
            "it was cut from."
        )
    with left_as_found(model), left_as_found(dense), torch.no_grad():
        model.eval()
        dense.eval()
        dense.requires_grad_(False)
        calls = LayerCalls(original, list(batches), most_bytes=MOST_BYTES)
        firsts = [calls.of(number)[0].real for number in range(len(calls.batches))]
        rows = sum(map(len, firsts))
        if rows < HELD_OUT_EVERY:
            raise PlanError(
                f"Repair needs at least {HELD_OUT_EVERY} calibration rows, found {rows}. Pass a few hundred training "
                "rows."
            )
        squares = None
        if weights == "loss":
            squares = [squared_gradients(original, batch, number) for number, batch in enumerate(calls.batches)]
        done: list[RepairedProjection] = []
        pairs = list(zip(layers_of(anatomy), layers_of(original), strict=True))
        with States(MOST_BYTES) as states:
            for index, (layer, dense_layer) in enumerate(over(pairs, "repairing")):
                rows_there = _Rows(calls, states, index)
                rows_there.start(anatomy)
                done += _repair_layer(layer, dense_layer, rows_there, squares)
    return Repair(tuple(done), rows, sum(int(real.sum()) for real in firsts))


def check_repairable(model: nn.Module) -> None:
    """See that a model's layers can be run one by one, as `repair_` does, on a few random tokens.

    Raises:
        UnsupportedModelError: If they cannot.
    """
    tokens = min(8, longest_input(model) or 8)
    inputs = random_inputs(model, batch_size=2, tokens=tokens, generator=torch.Generator().manual_seed(0))
    with left_as_found(model), torch.no_grad():
        model.eval()
        LayerCalls(dissect(model), [inputs], most_bytes=0).of(0)


def check_weights(weights: str) -> None:
    """See that it is known how tokens are to count.

    Raises:
        PlanError: If it is not.
    """
    if weights not in get_args(Weights):
        raise PlanError(f"{option('repair_weights', weights)} is not known.{one_of(weights, get_args(Weights))}")


def repaired_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """What repair can change of a model, by the names in its `state_dict`: output and down projections."""
    names = [f"{one.full_name}." for layer in layers_of(dissect(model)) for one in layer.projections]
    return {
        key: value.detach().cpu().contiguous()
        for key, value in model.state_dict().items()
        if key.startswith(tuple(names))
    }


@dataclass(frozen=True)
class _Rows:
    """All rows before one layer: hidden states of both models, which advance with the layers, and the layer's calls.

    Attributes:
        calls: Of every layer.
        states: By batch, "ours" is the pruned model's (B, T, D) and "theirs" the dense one's; "memory" what the pruned
            model's encoder gave (B, S, D), in its decoder.
        index: Of the layer.
    """

    calls: LayerCalls
    states: States
    index: int

    def __iter__(self) -> Iterator[tuple[int, Call]]:
        """Numbers of the batches and how each goes through the layer."""
        return ((number, self.calls.of(number)[self.index]) for number in range(len(self.calls.batches)))

    def start(self, anatomy: Anatomy) -> None:
        """Put what the layer reads, where it is the first one of the model or of its decoder."""
        for number, call in self:
            if call.start is None:
                return  # In one batch as in all.
            if self.index:
                self.states.put("memory", number, _encoded(anatomy, self.states.get("ours", number)))
            for name in ("ours", "theirs"):
                self.states.put(name, number, call.start)

    def memory(self, number: int) -> torch.Tensor | None:
        """What a decoder's layer attends to in the pruned model; None elsewhere."""
        return self.states.get("memory", number) if self.states.has("memory", number) else None


def _encoded(anatomy: Anatomy, hidden: torch.Tensor) -> torch.Tensor:
    """What an encoder gives of the hidden states behind its last layer (B, S, D)."""
    norm = anatomy.family.last_norm
    if norm is None:
        return hidden
    encoded: torch.Tensor = anatomy.base.get_submodule(norm)(hidden)
    return encoded


def _repair_layer(
    layer: Layer, original: Layer, rows: _Rows, squares: Sequence[Mapping[str, torch.Tensor]] | None
) -> list[RepairedProjection]:
    """Solve all projections of one layer; the rows then are behind it."""
    done = []
    for number, projection in enumerate(layer.projections):
        done.append(_solve(projection, *_moments(layer, original, number, rows, squares)))
    for batch, call in rows:
        rows.states.put("ours", batch, run_layer(layer, call, rows.states.get("ours", batch), rows.memory(batch)))
    return done


def _moments(
    layer: Layer, original: Layer, number: int, rows: _Rows, squares: Sequence[Mapping[str, torch.Tensor]] | None
) -> tuple[Moments, Moments]:
    """Moments of one projection, of the rows that are fitted and of those held out.

    The dense layer runs again for each of its projections: its own results for all rows are as large as the states.
    Behind its last one its states are those that the next layer reads.
    """
    projection, last = layer.projections[number], number == len(layer.projections) - 1
    moments: tuple[Moments, ...] = ()
    row = 0
    for batch, call in rows:
        real, theirs = call.real, rows.states.get("theirs", batch)
        if last:
            behind, parts = run_with_parts(original, call, theirs)
            rows.states.put("theirs", batch, behind)
            wanted = parts[number].added_up
        else:
            wanted = run_up_to(original, number, call, theirs).added_up
        part = run_up_to(layer, number, call, rows.states.get("ours", batch), rows.memory(batch))
        missing = part.missing_to(wanted)
        counts = real.to(torch.float32)
        if squares is not None:
            counts = token_weights(squares[batch][projection.full_name], real)
        if not moments:
            origins = _origins(projection, part.inputs[real], missing[real])
            moments = Moments(*origins), Moments(*origins)
        held = (torch.arange(row, row + len(real), device=real.device) % HELD_OUT_EVERY) == HELD_OUT_EVERY - 1
        for sums, chosen in zip(moments, (real & ~held[:, None], real & held[:, None]), strict=True):
            sums.add(part.inputs[chosen], missing[chosen], counts[chosen])
        row += len(real)
    fitted, held_out = moments
    return fitted, held_out


def _origins(projection: Projection, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Near which inputs (N, K) and wanted outputs (N, D) lie; 0 without a bias, where moments are about 0."""
    wide = torch.promote_types(x.dtype, torch.float32)
    module: Any = projection.module
    if module.bias is None or not len(x):
        return x.new_zeros(x.shape[1], dtype=wide), y.new_zeros(y.shape[1], dtype=wide)
    return x.to(wide).mean(0), y.to(wide).mean(0)


def _solve(projection: Projection, fitted: Moments, held: Moments) -> RepairedProjection:
    """Choose the damping by the held-out rows, solve with all rows, and write the solution into the projection."""
    module: Any = projection.module
    outputs = widths(module)[1]
    empty = isinstance(module, BiasOnly)
    weight = torch.zeros(outputs, 0, dtype=torch.float64)
    if not empty:
        weight = exact(projection.block.matrix(projection.name).weight)
    with_bias = module.bias is not None
    bias = exact(module.bias) if with_bias else torch.zeros(outputs, dtype=torch.float64)
    damping = chosen_damping(weight, fitted, held, with_bias=with_bias)
    before = held.error(weight, bias)
    if not math.isfinite(before):
        raise DivergenceError(
            f"Repair: what {projection.full_name} reads or is to give is not finite. Check the dense model's weights, "
            "and that its dtype holds its activations: float16 overflows where bfloat16 and float32 do not."
        )
    after = held.error(*LeastSquares(fitted, weight, with_bias=with_bias).solve(damping))
    if after < before:
        new_weight, new_bias = LeastSquares(fitted + held, weight, with_bias=with_bias).solve(damping)
        if not empty:
            projection.block.matrix(projection.name).weight.copy_(new_weight)
        if with_bias:
            module.bias.copy_(new_bias)
    variance = max(held.variance, 1e-300)
    # An error of nothing is a difference of equals, and may come out a little below 0.
    shares = (max(0.0, error) / variance for error in (before, min(after, before)))
    return RepairedProjection(projection.full_name, damping, *shares)
