"""Score every head and neuron by how much the loss of the task depends on it."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from prunelora.errors import ScoreError, check_count
from prunelora.importance.criteria import GradientCriterion, WeightCriterion, find_criterion
from prunelora.importance.curvature import Curvature
from prunelora.importance.importance import Importance
from prunelora.importance.linear_probe import head_restored, train_linear_probe_
from prunelora.importance.losses import Batch, check_that_all_ran, count_examples, count_tokens, summed_loss
from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.gates import gated
from prunelora.models.padding import readable
from prunelora.models.state import left_as_found
from prunelora.progress import over
from prunelora.storage import name_of


def score(
    model: nn.Module,
    batches: Iterable[Batch] = (),
    *,
    criterion: str = "gradient",
    probe_steps: int = 0,
    seed: int = 0,
) -> Importance:
    """Score every attention head and feed-forward neuron by how much the task's loss depends on it.

    With the criterion "gradient" a unit's score is::

        I = (1 / N_tokens) * sum over examples x of |dLoss(x) / dxi|    at xi = 1,

    where xi multiplies the head's context vector just before the output projection, or the neuron's activation just
    before the down projection (Michel et al. 2019, I_h; eq. 1 of Wang et al. 2023). A gate holds a row an example,
    (B, H_l) and (B, F_l), and the loss is summed over the batch, so one backward pass gives every example's own
    gradient: the absolute value is taken before anything is added up, and batch size, padding and order change nothing.

    With "obs" it is what leaving the unit out adds to the mean loss, as far as gradients tell, when the output and
    down projections of what stays are solved anew, as repair does: units that can stand in for each other are not all
    cut, nor all kept. Units go one after another, the cheapest of a layer first; see `curvature` and `elimination`.
    These scores are compared as they are: plan with `normalise="none"`.

    The model is used in eval mode with every weight frozen and is left as it was found. One pass costs about a forward
    and a backward pass without weight gradients.

    Args:
        model: A model of a supported family with a loss: its loss must be the mean over the rows of the batch, or over
            its labelled tokens, as the classes of transformers compute it.
        batches: Dicts as `model(**batch)` takes them, with `labels`, or the positions of a span that answers, every
            one of them within the row; training rows only. 500 to 2,000 are usually
            enough. Not needed by "magnitude" and "random".
        criterion: "gradient", "fisher" (squares in place of absolute values), "obs", "magnitude" or "random".
        probe_steps: Train the task head alone on frozen features for so many steps first, and put it back afterwards:
            a head that was just initialised gives noisy gradients. `batches` must then be a list.
        seed: For "random", and for the order of the linear probe.

    Returns:
        Importance, where `heads[l]` has shape (H_l,) and `neurons[l]` (F_l,), float64, unnormalised.

    Raises:
        UnsupportedModelError: If the model's family has no row in the table of families.
        ScoreError: If there is no batch, a batch has no labels, the loss is missing or not finite, a gate never ran,
            or `probe_steps` is no whole number.
    """
    check_count(ScoreError, "probe_steps", probe_steps, at_least=0)
    anatomy = dissect(model)
    chosen = find_criterion(criterion)
    provenance: dict[str, Any] = {"criterion": criterion}
    if isinstance(chosen, WeightCriterion):
        generator = torch.Generator().manual_seed(seed)
        pairs = [chosen.scores(block, generator) for block in anatomy.blocks]
        if criterion == "random":
            provenance["seed"] = seed
        return _importance(anatomy, [heads for heads, _ in pairs], [neurons for _, neurons in pairs], provenance)

    with left_as_found(model), contextlib.ExitStack() as stack:
        if probe_steps:
            if not isinstance(batches, list | tuple):
                raise ScoreError(
                    f"probe_steps={probe_steps} goes over the batches more than once, found "
                    f"{type(batches).__name__}. Pass list(batches)."
                )
            stack.enter_context(head_restored(model))
            train_linear_probe_(model, batches, steps=probe_steps, seed=seed)
            provenance["probe_steps"] = probe_steps
        model.eval()
        model.requires_grad_(False)
        totals = _Totals(anatomy, chosen) if isinstance(chosen, GradientCriterion) else Curvature(anatomy)
        for number, batch in enumerate(over(batches, "scoring")):
            totals.add(number, batch)
        if not totals.num_examples:
            raise ScoreError("No batch to score with: `batches` was empty, or was an iterator that is used up.")
    provenance |= {"num_examples": totals.num_examples, "num_tokens": totals.num_tokens}
    return _importance(anatomy, *totals.scores(), provenance)


def _importance(
    anatomy: Anatomy, heads: list[torch.Tensor], neurons: list[torch.Tensor], provenance: dict[str, Any]
) -> Importance:
    name = getattr(getattr(anatomy.model, "config", None), "name_or_path", "") or type(anatomy.model).__name__
    return Importance(
        heads=tuple(scores.numpy() for scores in heads),
        neurons=tuple(scores.numpy() for scores in neurons),
        lineage=anatomy.lineage,
        num_parameters=sum(parameter.numel() for parameter in anatomy.model.parameters()),
        provenance={"model": name_of(str(name))} | provenance,
    )


class _UnitGate(torch.autograd.Function):
    """Multiplication by a gate that is 1, with the gate's gradient, but without the multiplication.

    Forward returns the input itself. Backward passes the gradient on and gives each example's gate gradient: the inner
    product of input and gradient over the tokens and over the unit's channels.
    """

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(inputs)
        ctx.gate_shape = gate.shape
        return inputs.view_as(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (inputs,) = ctx.saved_tensors
        (gradient,) = gradients
        wide = torch.promote_types(inputs.dtype, torch.float32)
        per_channel = (inputs.to(wide) * gradient.to(wide)).sum(dim=1)  # (B, T, U * width) -> (B, U * width)
        examples, units = ctx.gate_shape
        # An example of multiple choice is several rows, one behind the other.
        return gradient, per_channel.reshape(examples, -1, units, per_channel.shape[1] // units).sum(dim=(1, 3))


class _Totals:
    """Sums over examples of every gate's contribution, in float64."""

    def __init__(self, anatomy: Anatomy, criterion: GradientCriterion) -> None:
        self.anatomy = anatomy
        self.criterion = criterion
        self.heads = [torch.zeros(block.num_heads, dtype=torch.float64) for block in anatomy.blocks]
        self.neurons = [torch.zeros(block.num_neurons, dtype=torch.float64) for block in anatomy.blocks]
        self.num_examples = 0
        self.num_tokens = 0

    def add(self, number: int, batch: Batch) -> None:
        """Run one batch forward and backward and add its examples."""
        examples = count_examples(batch, number)
        batch = readable(batch, self.anatomy.model)
        gates: dict[tuple[int, bool], torch.Tensor] = {}
        lengths: set[int] = set()

        def gate(layer: int, inputs: torch.Tensor, units: int, of_heads: bool) -> torch.Tensor:
            wide = torch.promote_types(inputs.dtype, torch.float32)
            lengths.add(inputs.shape[1])
            if inputs.shape[0] % examples:
                raise ScoreError(
                    f"Batch {number} has labels of {examples} examples, and the model makes {inputs.shape[0]} rows of "
                    "it. Give every example as many rows (choices), one behind the other."
                )
            if (layer, of_heads) not in gates:
                ones = torch.ones(examples, units, dtype=wide, device=inputs.device, requires_grad=True)
                gates[layer, of_heads] = ones
            # A layer that is run several times has one gate for all of them, as its units stay or go in all.
            return _UnitGate.apply(inputs, gates[layer, of_heads])

        blocks = self.anatomy.blocks
        with (
            torch.enable_grad(),
            gated(
                self.anatomy,
                lambda layer, inputs: gate(layer, inputs, blocks[layer].num_heads, True),
                lambda layer, inputs: gate(layer, inputs, blocks[layer].num_neurons, False),
            ),
        ):
            loss = summed_loss(self.anatomy.model, batch, number)
            self._check_that_gates_ran(gates)
            gradients = torch.autograd.grad(loss, list(gates.values()))
        for (layer, of_heads), gradient in zip(gates, gradients, strict=True):
            total = self.heads[layer] if of_heads else self.neurons[layer]
            # On the CPU, since not every device has float64.
            total += self.criterion.contribution(gradient.cpu().double()).sum(dim=0)
        self.num_examples += examples
        self.num_tokens += count_tokens(batch, examples, max(lengths))

    def scores(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Means over the tokens, of heads (H_l,) and of neurons (F_l,)."""
        heads, neurons = ([total / self.num_tokens for total in kind] for kind in (self.heads, self.neurons))
        return heads, neurons

    def _check_that_gates_ran(self, gates: Mapping[tuple[int, bool], torch.Tensor]) -> None:
        silent = [
            f"{block.full_name(name)}"
            for block in self.anatomy.blocks
            for name, units, of_heads in (("output", block.num_heads, True), ("down", block.num_neurons, False))
            if units and (block.index, of_heads) not in gates
        ]
        check_that_all_ran(silent, any_ran=bool(gates))
