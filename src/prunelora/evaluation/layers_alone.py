"""Copies of a model of which a few layers are left to work: what they take, times the layers, is what all take."""

import copy
from typing import cast

from torch import nn

from prunelora.models.anatomy import dissect
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_


def first_layers(model: nn.Module, plan: Plan, count: int) -> nn.Module:
    """A model cut by a plan, of which the first layers alone have heads and neurons."""
    empty = ((),) * (len(plan.heads) - count)
    thin = Plan(base=plan.base, heads=(*plan.heads[:count], *empty), neurons=(*plan.neurons[:count], *empty))
    return prune_(copy.deepcopy(model).eval(), thin)


def _lists(model: nn.Module) -> list[str]:
    """Names of the lists that hold the layers."""
    parents = dict.fromkeys(block.prefix.rpartition(".")[0] for block in dissect(model).blocks)
    return [name for name in parents if isinstance(model.get_submodule(name), nn.ModuleList)]


def num_layers(model: nn.Module) -> int:
    """Layers of a model; of an encoder-decoder those of its longer half. 1 where one layer is run over and over."""
    return max((len(_list(model, name)) for name in _lists(model)), default=1)


def shallow(model: nn.Module, layers: int) -> nn.Module:
    """A copy with the first layers alone."""
    model = copy.deepcopy(model)
    for name in _lists(model):
        model.set_submodule(name, nn.ModuleList(list(_list(model, name))[:layers]))
    return model


def _list(model: nn.Module, name: str) -> nn.ModuleList:
    return cast(nn.ModuleList, model.get_submodule(name))
