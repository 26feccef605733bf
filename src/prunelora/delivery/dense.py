"""A pruned model at full size, with zeros for pruned heads and neurons, for tools that need the base's shapes."""

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

from prunelora.models.anatomy import dissect
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_


def dense_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the base's shapes that computes the pruned model's function, at the speed of the base.

    A head adds nothing if its values and output columns are 0, a neuron if its column of the down projection is 0.
    Logits agree up to rounding.

    Args:
        model: Pruned and merged; it is not changed. Memory holds two further models of the base's size.

    Returns:
        A model of the same class and dtype, in eval mode, with an ordinary configuration.
    """
    plan = getattr(model, "prunelora_plan", None) or Plan.whole(dissect(model).lineage)
    config = copy.deepcopy(model.config)
    kind: Any = type(model)
    full: PreTrainedModel = kind._from_config(config, dtype=model.dtype)
    numbered = _numbered(kind._from_config(config, dtype=torch.float64))
    prune_(numbered, plan)
    targets, positions = dict(full.named_parameters()), dict(numbered.named_parameters())
    with torch.no_grad():
        for target in targets.values():
            target.zero_()
        for name, value in model.named_parameters():
            targets[name].data = targets[name].data.to(value.dtype)
            targets[name].view(-1)[positions[name].view(-1).long()] = value.detach().cpu().view(-1)
        for name, buffer in model.named_buffers():
            full.get_buffer(name).copy_(buffer)
    if full.can_generate():
        full.generation_config = copy.deepcopy(model.generation_config)
    return full.eval()


def _numbered(model: PreTrainedModel) -> PreTrainedModel:
    """Set every parameter's elements to 0, 1, 2, ...: after pruning they are the positions of the kept elements."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.arange(parameter.numel(), dtype=parameter.dtype).view(parameter.shape))
    return model
