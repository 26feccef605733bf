"""Scoring of heads and neurons by how much the task's loss depends on them."""

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
from prunelora.models.padding import prepare_batch
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

    With the criterion "gradient", the score of a head or neuron is::

        I = (1 / N_tokens) * sum over examples x of |dLoss(x) / dxi|    at xi = 1,

    where the gate xi multiplies the head's context vector just before the output projection, or the neuron's activation
    just before the down projection (Michel et al. 2019, I_h; eq. 1 of Wang et al. 2023). Gates have one row per
    example, (B, H_l) and (B, F_l), and the loss is summed over the batch, so one backward pass gives every example's
    own gradient, and its absolute value is taken before the sum. Scores do not depend on batch size, padding or order.

    With "obs" (optimal brain surgeon), the score is the estimated increase of the mean loss after removal, if the
    output and down projections of the remaining heads and neurons are re-solved, as repair does. Of units that can
    replace each other, some are therefore kept. The units of a layer are removed one after another, the cheapest first;
    see `curvature` and `elimination`. These scores are in units of the loss: plan with `normalise="none"`.

    With "features", it is the same for half the mean squared distance of the vectors that the task head reads, in place
    of the loss; see `objectives`. Neither labels nor a trained task head are needed, so it scores a pretrained model
    before any training: a new task head's loss says nothing about the task. It reads the first, last or every token, or
    their mean, as the task head does.

    The model runs in eval mode with all weights frozen, and is restored afterwards. A batch costs about a forward and a
    backward pass without weight gradients.

    Args:
        model: A model of a supported family, whose loss is the mean over the rows of the batch, or over its labelled
            tokens, as in transformers.
        batches: Dicts as `model(**batch)` takes them, with `labels`, or the positions of an answer's span within the
            row; training rows only. 500 to 2,000 rows are usually enough. "features" needs no labels, "magnitude" and
            "random" no batches.
        criterion: "gradient", "fisher" (squares instead of absolute values), "obs", "features", "magnitude" or
                "random".
        probe_steps: Steps of a linear probe before scoring, which trains the task head on frozen features, since a new
            head gives noisy gradients. The head is restored afterwards. `batches` must then be a list.
        seed: Seed of "random" and of the order of batches in the linear probe.

    Returns:
        Importance, where `heads[l]` has shape (H_l,) and `neurons[l]` (F_l,), float64, unnormalised.

    Raises:
        UnsupportedModelError: If the model's family has no row in the table of families.
        ScoreError: If there is no batch, a batch has no labels, the loss is missing or not finite, a projection did not
            run, or `probe_steps` is not a whole number.
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
                    f"probe_steps={probe_steps} reads the batches more than once, and `batches` is a "
                    f"{type(batches).__name__}. Pass list(batches)."
                )
            stack.enter_context(head_restored(model))
            train_linear_probe_(model, batches, steps=probe_steps, seed=seed)
            provenance["probe_steps"] = probe_steps
        model.eval()
        model.requires_grad_(False)
        sums: _GateGradients | Curvature = (
            _GateGradients(anatomy, chosen)
            if isinstance(chosen, GradientCriterion)
            else Curvature(anatomy, chosen.objective)
        )
        for number, batch in enumerate(over(batches, "scoring")):
            sums.add(number, batch)
        if not sums.num_examples:
            raise ScoreError("No batch to score with: `batches` was empty, or an exhausted iterator.")
    provenance |= {"num_examples": sums.num_examples, "num_tokens": sums.num_tokens}
    return _importance(anatomy, *sums.scores(), provenance)


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
    """Multiplication by a gate of 1: the identity, with the gradient that the gate would have.

    An example's gate gradient is the inner product of input and output gradient over tokens and the unit's channels.
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
        # In multiple choice, an example has several consecutive rows.
        return gradient, per_channel.reshape(examples, -1, units, per_channel.shape[1] // units).sum(dim=(1, 3))


class _GateGradients:
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
        batch = prepare_batch(batch, self.anatomy.model)
        gates: dict[tuple[int, bool], torch.Tensor] = {}
        lengths: set[int] = set()

        def gate(layer: int, inputs: torch.Tensor, units: int, of_heads: bool) -> torch.Tensor:
            wide = torch.promote_types(inputs.dtype, torch.float32)
            lengths.add(inputs.shape[1])
            if inputs.shape[0] % examples:
                raise ScoreError(
                    f"Batch {number} has labels for {examples} examples and {inputs.shape[0]} rows. Give every example "
                    "the same number of consecutive rows (choices)."
                )
            if (layer, of_heads) not in gates:
                ones = torch.ones(examples, units, dtype=wide, device=inputs.device, requires_grad=True)
                gates[layer, of_heads] = ones
            # A layer that runs several times has one gate for all runs, since pruning affects them all.
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
            # On the CPU, since some devices have no float64.
            total += self.criterion.contribution(gradient.cpu().double()).sum(dim=0)
        self.num_examples += examples
        self.num_tokens += count_tokens(batch, examples, max(lengths))

    def scores(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Sums divided by the number of tokens, for heads (H_l,) and neurons (F_l,)."""
        heads, neurons = ([total / self.num_tokens for total in kind] for kind in (self.heads, self.neurons))
        return heads, neurons

    def _check_that_gates_ran(self, gates: Mapping[tuple[int, bool], torch.Tensor]) -> None:
        silent = [
            block.full_name(name)
            for block in self.anatomy.blocks
            for name, units, of_heads in (("output", block.num_heads, True), ("down", block.num_neurons, False))
            if units and (block.index, of_heads) not in gates
        ]
        check_that_all_ran(silent, any_ran=bool(gates))
