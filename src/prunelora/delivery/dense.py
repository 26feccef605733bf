"""A pruned model at its full size again: zeros where heads and neurons were, for tools that know one shape a layer."""

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

from prunelora.models.anatomy import dissect
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_


def dense_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the base's shapes that computes what the pruned one does; it is no faster than the base.

    A head whose values and output columns are 0 adds nothing, nor does a neuron whose column of the down projection is
    0. Sums are then over more terms, so logits agree to rounding.

    Args:
        model: Pruned, merged; it is not changed. Two more models are held in memory meanwhile.

    Returns:
        Of the same class and dtype, in eval mode, with an ordinary configuration.
    """
    plan = getattr(model, "prunelora_plan", None) or Plan.whole(dissect(model).lineage)
    config = copy.deepcopy(model.config)
    kind: Any = type(model)
    full: PreTrainedModel = kind._from_config(config, dtype=model.dtype)
    places = _numbered(kind._from_config(config, dtype=torch.float64))
    prune_(places, plan)
    targets, numbers = dict(full.named_parameters()), dict(places.named_parameters())
    with torch.no_grad():
        for target in targets.values():
            target.zero_()
        for name, value in model.named_parameters():
            targets[name].data = targets[name].data.to(value.dtype)
            targets[name].view(-1)[numbers[name].view(-1).long()] = value.detach().cpu().view(-1)
        for name, buffer in model.named_buffers():
            full.get_buffer(name).copy_(buffer)
    if full.can_generate():
        full.generation_config = copy.deepcopy(model.generation_config)
    return full.eval()


def _numbered(model: PreTrainedModel) -> PreTrainedModel:
    """A model whose every parameter holds its own places, 0, 1, 2, ...: cut it, and it says which places stay."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.arange(parameter.numel(), dtype=parameter.dtype).view(parameter.shape))
    return model
