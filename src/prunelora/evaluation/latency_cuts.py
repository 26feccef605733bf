"""What is measured for a latency model: the dense model, and copies of it with every layer cut alike."""

import copy
import math
from typing import NamedTuple

from torch import nn

from prunelora.evaluation.counting import parameters
from prunelora.evaluation.latency_model import whole_layer
from prunelora.models.anatomy import dissect
from prunelora.models.architecture import Architecture
from prunelora.planning.costs import block_parameters
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_


class _Shares(NamedTuple):
    """Shares of the heads, of the neurons and of both at once that are measured, beside none, the least and all."""

    heads: tuple[float, ...]
    neurons: tuple[float, ...]
    # These show what a sum over heads and neurons misses, and pull it to where plans are.
    both: tuple[float, ...]


_SHARES = {
    "torch": _Shares((1 / 4, 1 / 2, 3 / 4), (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4), (0, 1 / 4, 1 / 2)),
    # Every one is an export, which takes many times as long as its timing.
    "onnxruntime": _Shares((1 / 2,), (1 / 4, 1 / 2), (0, 1 / 2)),
}

# A width that matrix products like; the least number of neurons that plans keep.
_STEP = 8


class Cut(NamedTuple):
    """What is left in every layer."""

    heads: int
    neurons: int


def cuts(architecture: Architecture, engine: str = "torch") -> list[Cut]:
    """What is measured, the dense model first.

    12 heads and 3,072 neurons in torch: heads 0, 1, 3, 6, 9 with all neurons; neurons 0, 8, 384, 768, 1152, 1536, 2304
    with all heads; nothing, a quarter, and half of both.
    """
    heads, neurons = whole_layer(architecture)
    shares = _SHARES[engine]

    def width(share: float) -> int:
        return min(neurons, _STEP * round(share * neurons / _STEP))

    head_counts = sorted({0, min(1, heads), *(round(share * heads) for share in shares.heads)} - {heads})
    widths = sorted({0, min(_STEP, neurons), *map(width, shares.neurons)} - {neurons})
    found = [
        Cut(heads, neurons),
        *(Cut(count, neurons) for count in head_counts),
        *(Cut(heads, count) for count in widths),
        *(Cut(round(share * heads), width(share)) for share in shares.both),
    ]
    return list(dict.fromkeys(found))


def plan_of(architecture: Architecture, cut: Cut) -> Plan:
    """The plan that leaves the first so many heads and neurons in every layer."""
    return Plan(
        base=architecture,
        heads=(tuple(range(cut.heads)),) * architecture.num_layers,
        neurons=tuple(tuple(range(min(cut.neurons, count))) for count in architecture.num_neurons),
    )


def cut_copy(model: nn.Module, plan: Plan) -> nn.Module:
    """A cut copy that shares every parameter outside the blocks with the model, embeddings above all."""
    inside = {id(p) for block in dissect(model).blocks for p in block.module.parameters()}
    shared = {id(p): p for p in model.parameters() if id(p) not in inside}
    return prune_(copy.deepcopy(model, shared), plan)


def bytes_of(model: nn.Module, architecture: Architecture, cut: Cut, engine: str) -> int:
    """What a copy takes; an onnxruntime session has embeddings of its own."""
    in_blocks = block_parameters(plan_of(architecture, cut).architecture)
    count = parameters(model)
    outside = count.total - count.blocks if engine == "onnxruntime" else 0
    return (in_blocks + outside) * next(model.parameters()).element_size()


def groups_of(sizes: dict[Cut, int], most: int) -> list[list[Cut]]:
    """As few groups as keep the limit, or nearly, of about the same number of bytes; every one has something."""
    wanted = max(1, math.ceil(sum(sizes.values()) / most))
    groups: list[list[Cut]] = [[] for _ in range(min(wanted, len(sizes)))]
    filled = [0] * len(groups)
    for cut in sorted(sizes, key=lambda one: sizes[one], reverse=True):
        least = filled.index(min(filled))
        groups[least].append(cut)
        filled[least] += sizes[cut]
    return groups
