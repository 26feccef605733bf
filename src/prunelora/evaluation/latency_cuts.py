"""The cuts that are measured for a latency model: the dense model, and copies with every layer cut alike."""

import copy
import math
from typing import NamedTuple

from torch import nn

from prunelora.evaluation.counting import parameters
from prunelora.models.anatomy import dissect
from prunelora.models.architecture import Architecture
from prunelora.planning.costs import block_parameters
from prunelora.planning.latency_model import whole_layer
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_


class _Shares(NamedTuple):
    """Measured shares of heads, of neurons and of both at once, beside none, the least and all."""

    heads: tuple[float, ...]
    neurons: tuple[float, ...]
    # These pull the sum over heads and neurons towards the cuts of real plans.
    both: tuple[float, ...]


_SHARES = {
    "torch": _Shares((1 / 4, 1 / 2, 3 / 4), (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4), (0, 1 / 4, 1 / 2)),
    # Fewer, since every cut is exported, which takes much longer than its timing.
    "onnxruntime": _Shares((1 / 2,), (1 / 4, 1 / 2), (0, 1 / 2)),
}

# A width that suits matrix products; the least number of neurons that plans keep.
_STEP = 8


class Cut(NamedTuple):
    """Heads and neurons that stay in every layer."""

    heads: int
    neurons: int


def cuts(architecture: Architecture, engine: str = "torch") -> list[Cut]:
    """The measured cuts, the dense model first.

    12 heads and 3,072 neurons in torch: heads 0, 1, 3, 6, 9 with all neurons; neurons 0, 8, 384, 768, 1152, 1536, 2304
    with all heads; nothing, a quarter, and half of both.
    """
    heads, neurons = whole_layer(architecture)
    shares = _SHARES[engine]

    def width(share: float) -> int:
        return min(neurons, _STEP * round(share * neurons / _STEP))

    head_counts = sorted({0, min(1, heads), *(round(share * heads) for share in shares.heads)} - {heads})
    widths = sorted({0, min(_STEP, neurons), *map(width, shares.neurons)} - {neurons})
    every = [
        Cut(heads, neurons),
        *(Cut(count, neurons) for count in head_counts),
        *(Cut(heads, count) for count in widths),
        *(Cut(round(share * heads), width(share)) for share in shares.both),
    ]
    return list(dict.fromkeys(every))


def plan_of(architecture: Architecture, cut: Cut) -> Plan:
    """The plan that keeps the first heads and neurons of every layer."""
    return Plan(
        base=architecture,
        heads=(tuple(range(cut.heads)),) * architecture.num_layers,
        neurons=tuple(tuple(range(min(cut.neurons, count))) for count in architecture.num_neurons),
    )


def cut_copy(model: nn.Module, plan: Plan) -> nn.Module:
    """A cut copy that shares the parameters outside the blocks with the model, such as embeddings."""
    inside = {id(p) for block in dissect(model).blocks for p in block.module.parameters()}
    shared = {id(p): p for p in model.parameters() if id(p) not in inside}
    return prune_(copy.deepcopy(model, shared), plan)


def bytes_of(model: nn.Module, architecture: Architecture, cut: Cut, engine: str) -> int:
    """Memory of a copy; an onnxruntime session has embeddings of its own."""
    in_blocks = block_parameters(plan_of(architecture, cut).architecture)
    count = parameters(model)
    outside = count.total - count.blocks if engine == "onnxruntime" else 0
    return (in_blocks + outside) * next(model.parameters()).element_size()


def groups_of(sizes: dict[Cut, int], most: int) -> list[list[Cut]]:
    """As few non-empty groups as stay near the limit, of about the same number of bytes."""
    wanted = max(1, math.ceil(sum(sizes.values()) / most))
    groups: list[list[Cut]] = [[] for _ in range(min(wanted, len(sizes)))]
    filled = [0] * len(groups)
    for cut in sorted(sizes, key=sizes.__getitem__, reverse=True):
        least = filled.index(min(filled))
        groups[least].append(cut)
        filled[least] += sizes[cut]
    return groups
