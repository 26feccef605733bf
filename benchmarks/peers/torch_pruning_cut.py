"""Torch-Pruning's cut of a transformer: heads and neurons by its Taylor importance, to a budget in MACs.

Follows the library's own example for BERT (whole heads, none of their width), with two differences: the residual stream
keeps its width, as in every other cut here, and the ratio is searched for that gives the asked share of the MACs, which
Torch-Pruning has no option for.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import nn

from benchmarks.peers.contenders import RANKING, RANKINGS
from prunelora.errors import PlanError
from prunelora.evaluation.counting import macs
from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.device import on_device

SEARCH_STEPS = 12
EVERYWHERE = 25
# History of a pruner: name of a layer, whether its outputs were cut, and which.
History = list[tuple[str, bool, list[int]]]
Gradients = Mapping[str, torch.Tensor | None]


@dataclass(frozen=True)
class TorchPruningCut:
    """A model that Torch-Pruning cut, and what is known of the cut.

    Attributes:
        model: The cut model; the one it was cut from is as it was.
        ratio: Share of heads and of neurons that was asked for.
        macs: Of the blocks, by prunelora's counting.
        dense_macs: The same of the dense model.
        heads: Left in every layer, by the weights.
        pruner_heads: The same by the pruner's own books.
        neurons: Left in every layer.
        tried: Every ratio of the search, with the share of the MACs that it left.
        seconds: "score" for the gradients, "plan" for the search, "prune" for the cut that was kept.
        history: What the pruner says that it did.
    """

    model: nn.Module
    ratio: float
    macs: int
    dense_macs: int
    heads: tuple[int, ...]
    pruner_heads: tuple[int, ...]
    neurons: tuple[int, ...]
    tried: tuple[tuple[float, float], ...]
    seconds: dict[str, float]
    history: History

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the model and its history."""
        return {name: value for name, value in vars(self).items() if name not in ("model", "history")}


def cut_with_torch_pruning(
    model: nn.Module,
    batches: Sequence[Mapping[str, Any]],
    *,
    keep_macs: float,
    tokens: int = 128,
    round_to: int = 8,
    ranking: str = RANKING,
    gradients: Gradients | None = None,
) -> TorchPruningCut:
    """Cut heads and neurons to at most a share of the MACs.

    Args:
        model: A classifier of a supported family, dense.
        batches: Dicts as `model(**batch)` takes them, with labels: the gradients are summed over all of them.
        keep_macs: Of the dense model's MACs.
        tokens: Length that MACs are counted for.
        round_to: Neurons stay in multiples of so many, as far as Torch-Pruning can.
        ranking: One of RANKINGS.
        gradients: What `gradients_of(model, batches)` gave, where the caller has it already.

    Raises:
        PlanError: If no ratio that was tried leaves so little.
    """
    started = time.perf_counter()
    gradients = gradients if gradients is not None else gradients_of(model, batches)
    scored = time.perf_counter()
    dense = macs(model, tokens=tokens).total

    def left_at(ratio: float) -> int:
        return macs(_cut_copy(model, gradients, batches[0], ratio, round_to, ranking)[0], tokens=tokens).total

    low, high = 0.0, 1.0
    tried: dict[float, int] = {}
    for _ in range(SEARCH_STEPS):
        ratio = (low + high) / 2
        tried[ratio] = left_at(ratio)
        low, high = (ratio, high) if tried[ratio] > keep_macs * dense else (low, ratio)
    if min(tried.values()) > keep_macs * dense:
        # A layer that was to lose all of a kind keeps all of it, so larger ratios may leave more: look everywhere.
        tried |= {step / EVERYWHERE: left_at(step / EVERYWHERE) for step in range(1, EVERYWHERE)}
    fitting = {ratio: left for ratio, left in tried.items() if left <= keep_macs * dense}
    shares = tuple((ratio, left / dense) for ratio, left in sorted(tried.items()))
    if not fitting:
        least = min(shares, key=lambda one: one[1])
        raise PlanError(
            f"keep_macs={keep_macs:g}: Torch-Pruning left {least[1]:.3f} of the MACs at least, at the ratio "
            f"{least[0]:.3f}, of {len(shares)} that were tried. Ask for more."
        )
    ratio = max(fitting, key=lambda one: fitting[one])
    searched = time.perf_counter()
    small, pruner = _cut_copy(model, gradients, batches[0], ratio, round_to, ranking)
    ended = time.perf_counter()
    blocks = dissect(small).blocks
    return TorchPruningCut(
        model=small.eval(),
        ratio=ratio,
        macs=macs(small, tokens=tokens).total,
        dense_macs=dense,
        heads=tuple(block.num_heads for block in blocks),
        pruner_heads=tuple(int(pruner.num_heads[block.part("query")]) for block in blocks),
        neurons=tuple(block.num_neurons for block in blocks),
        tried=shares,
        seconds={"score": scored - started, "plan": searched - scored, "prune": ended - searched},
        history=[(name, bool(outputs), [int(one) for one in ids]) for name, outputs, ids in pruner.pruning_history()],
    )


def replay_(model: nn.Module, history: History, batch: Mapping[str, Any]) -> nn.Module:
    """Cut a fresh dense model, in place, as a history says: Torch-Pruning's own way to build a cut model again."""
    graph = torch_pruning.DependencyGraph().build_dependency(
        model, example_inputs=_example(batch, model), output_transform=_traced
    )
    graph.load_pruning_history(history)
    # Adapted: unchecked, since numbers of heads do not fit the weights yet.
    _count_heads_again(dissect(model, adapted=True))
    return model


def as_in_the_example_(model: nn.Module, pruner_heads: Sequence[int]) -> None:
    """Write counts into the attention modules as Torch-Pruning's example for BERT does: from the pruner's books."""
    for block, count in zip(dissect(model).blocks, pruner_heads, strict=True):
        attention: Any = block.part("attention")
        rows = block.part("query").out_features
        setattr(attention, next(name for name, what in block.family.counts.items() if what == "heads"), count)
        setattr(attention, block.family.head_dim, rows // count)


def gradients_of(model: nn.Module, batches: Sequence[Mapping[str, Any]]) -> Gradients:
    """Gradient of the loss of every weight, summed over the batches; the model is left without any."""
    model.eval().requires_grad_(True)
    model.zero_grad(set_to_none=True)
    for batch in batches:
        model(**on_device(batch, model)).loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def _cut_copy(
    model: nn.Module,
    gradients: Gradients,
    batch: Mapping[str, Any],
    ratio: float,
    round_to: int,
    ranking: str,
) -> tuple[nn.Module, Any]:
    small = copy.deepcopy(model)
    # What was cut by then, if anything, is not what this model is now.
    vars(small).pop("prunelora_plan", None)
    for name, parameter in small.named_parameters():
        parameter.grad = gradients[name]
    anatomy = dissect(small)
    pruner = torch_pruning.pruner.BasePruner(
        small,
        _example(batch, small),
        importance=torch_pruning.importance.GroupTaylorImportance(),
        pruning_ratio=ratio,
        head_pruning_ratio=ratio,
        num_heads={block.part(name): block.num_heads for block in anatomy.blocks for name in ("query", "key", "value")},
        prune_num_heads=True,
        prune_head_dims=False,
        ignored_layers=_residual_stream(anatomy),
        round_to=round_to,
        output_transform=_traced,
        # Its defaults are one dict for all pruners, which keeps every model alive.
        in_channel_groups={},
        out_channel_groups={},
        **RANKINGS[ranking],
    )
    pruner.step()
    small.zero_grad(set_to_none=True)
    _count_heads_again(anatomy)
    return small, pruner


def _residual_stream(anatomy: Anatomy) -> list[nn.Module]:
    """What gives the residual stream its width, and the task head."""
    names = [*anatomy.norm_names(), *anatomy.task_head_names()]
    blocks = [block.part(name) for block in anatomy.blocks for name in ("output", "down")]
    return [anatomy.base.get_submodule("embeddings"), *map(anatomy.model.get_submodule, names), *blocks]


def _count_heads_again(anatomy: Anatomy) -> None:
    """Torch-Pruning cuts weights and knows nothing of the numbers that the attention module keeps beside them."""
    for block in anatomy.blocks:
        attention, rows = block.part("attention"), block.part("query").out_features
        for attribute, what in block.family.counts.items():
            setattr(attention, attribute, rows if what == "width" else rows // block.head_dim)


def _example(batch: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    return {name: value[:2] for name, value in on_device(batch, model).items() if name != "labels"}


def _traced(output: Any) -> torch.Tensor:
    return output.logits.sum()
