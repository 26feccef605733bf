"""Parameter counts of the paper's methods and of ours, from a model's configuration alone.

Models are built on torch's meta device, where tensors have shapes and no memory.
"""

import dataclasses
import functools
import warnings
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedConfig

from prunelora.data.embedded import model_source
from prunelora.errors import CheckpointError, MissingExtraError
from prunelora.finetuning.adapter import add_adapter, trainable_parameters
from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.architecture import Architecture
from prunelora.models.families import family_of_model_type
from prunelora.models.family import ATTENTION_PROJECTIONS
from prunelora.models.lineage import Lineage
from prunelora.models.loading import read_config
from prunelora.planning.costs import head_parameters, lora_parameters
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_
from prunelora.reproduction import paper

# The paper's LoRA has 12 rank units a block (rank 4 on three square matrices), its Prune-LoRA 8 more in 4 of 12 blocks.
_UNITS, _MORE_UNITS = 12, 8
_RANK_HIGH, _RANK_LOW, _RANK_DENSE = 8, 4, 8


@dataclass(frozen=True)
class Count:
    """Parameter counts of one method.

    Attributes:
        method: "full", "lora" or "prune-lora".
        way: Way of counting: "paper" or "ours".
        how: Description of the counted parameters.
        heads: Kept heads.
        task_head: Of the task head (pooler and classifier), if trained.
        other: Other trained parameters: the whole model in full fine-tuning.
        total: Of encoder, pooler and LoRA, without the classifier, whose size depends on the task.
    """

    method: str
    way: str
    how: str
    heads: int
    lora: int
    norms: int
    task_head: int
    other: int
    total: int

    @property
    def trained(self) -> int:
        """All trained parameters."""
        return self.lora + self.norms + self.task_head + self.other


@dataclass(frozen=True)
class Counts:
    """All counts of one model: a row a method and way of counting."""

    model: str
    architecture: Architecture
    rows: tuple[Count, ...]

    def of(self, method: str, way: str = "paper", *, heads: int | None = None, task_head: bool | None = None) -> Count:
        """Returns the first row of a method with these kept heads and this training of the task head, if given.

        Raises:
            StopIteration: If there is none.
        """
        return next(
            row
            for row in self.rows
            if (row.method, row.way) == (method, way)
            and heads in (None, row.heads)
            and task_head in (None, bool(row.task_head))
        )


@functools.cache
def bert_base_counts() -> Counts:
    """Counts of the paper's model, whose sizes `BertConfig()` has."""
    return count(BertConfig(), model=paper.MODEL)


def counts_of(model: str) -> Counts | None:
    """Counts of a model; None if its configuration is not available or its family is not supported."""
    try:
        config = read_config(model_source(model))
    except (CheckpointError, MissingExtraError):
        return None
    return count(config, model=model) if family_of_model_type(config.model_type) is not None else None


def count(config: PreTrainedConfig, *, model: str) -> Counts:
    """The paper's three rows by its way of counting, its text's number of heads, and our rows.

    Args:
        config: Of an encoder of a supported family.
        model: Name of the model.
    """
    anatomy = dissect(_empty(config))
    whole, norms = _size(anatomy.base), _norms(anatomy)
    base = anatomy.architecture
    cut_by_parameters = scaled(paper.HEADS_CUT_BY_PARAMETERS, base)
    cut_by_text = scaled(paper.HEADS_CUT_BY_TEXT, base)
    kept = base.total_heads - cut_by_text
    uniform = _units(base, _UNITS * base.num_layers)
    varied = uniform + _units(base, _MORE_UNITS * high_blocks(base))

    def papers_pruned(cut: int, how: str) -> Count:
        total = whole - cut * head_parameters(base) + varied
        return Count("prune-lora", "paper", how, base.total_heads - cut, varied, norms, 0, 0, total)

    rows = [
        Count("full", "paper", "encoder and pooler", base.total_heads, 0, 0, 0, whole, whole),
        Count(
            "lora", "paper", "LoRA of rank 4 on q, k, v, and LayerNorms",
            base.total_heads, uniform, norms, 0, 0, whole + uniform,
        ),
        papers_pruned(cut_by_parameters, f"{cut_by_parameters} heads cut; LoRA at the sizes before the cut"),
    ]  # fmt: skip
    if cut_by_text != cut_by_parameters:
        rows.append(papers_pruned(cut_by_text, f"{cut_by_text} heads cut; LoRA at the sizes before the cut"))
    dense = Plan.whole(anatomy.lineage, rank=_RANK_DENSE)
    pruned = evenly_pruned(anatomy.lineage, kept)
    how = f"{cut_by_text} heads cut; rank {_RANK_HIGH} or {_RANK_LOW} at the pruned sizes"
    ours = [
        built(config, dense, "lora", f"rank {_RANK_DENSE} on q, k, v and output"),
        built(config, pruned, "prune-lora", how),
    ]
    rows += [dataclasses.replace(row, task_head=0) for row in ours]
    rows += [dataclasses.replace(row, how=f"{row.how}, task head too") for row in ours]
    return Counts(model, base, tuple(rows))


def built(config: PreTrainedConfig, plan: Plan, method: str, how: str) -> Count:
    """Counts of a model that is pruned by a plan and given an adapter, with the task head trained."""
    model = prune_(_empty(config), plan)
    kept = _size(dissect(model).base)
    with warnings.catch_warnings():
        # PEFT still uses old names of transformers.
        warnings.simplefilter("ignore", FutureWarning)
        kinds = trainable_parameters(add_adapter(model, plan))
    heads = plan.architecture.total_heads
    return Count(method, "ours", how, heads, kinds["lora"], kinds["norms"], kinds["head"], 0, kept + kinds["lora"])


def evenly_pruned(lineage: Lineage, keep_heads: int) -> Plan:
    """A plan that spreads the kept heads evenly and gives the first third of the blocks the high rank.

    The heads of a real plan depend on scores: each head in a block of high rank instead of one of low rank adds
    4 x (8 - 4) x head_dim LoRA parameters.
    """
    base = lineage.base
    each, more = divmod(keep_heads, base.num_layers)
    ranks = tuple(_RANK_HIGH if layer < high_blocks(base) else _RANK_LOW for layer in range(base.num_layers))
    return Plan(
        base=base,
        heads=tuple(tuple(range(each + (layer < more))) for layer in range(base.num_layers)),
        neurons=lineage.neurons,
        ranks=dict.fromkeys(ATTENTION_PROJECTIONS, ranks),
    )


def high_blocks(base: Architecture) -> int:
    """Number of blocks with the high rank: the paper's 4 of 12, in proportion."""
    return max(1, base.num_layers // 3)


def scaled(heads: int, base: Architecture) -> int:
    """A number of BERT-base's 144 heads in proportion: 44 of 144 are 22 of 72."""
    return round(heads * base.total_heads / paper.ALL_HEADS)


def _units(base: Architecture, units: int) -> int:
    """LoRA parameters of rank units on square matrices of the hidden size."""
    return lora_parameters(base.hidden_size, base.hidden_size, units)


def _empty(config: PreTrainedConfig) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = AutoModelForSequenceClassification.from_config(config)
    return model


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _norms(anatomy: Anatomy) -> int:
    return sum(_size(anatomy.model.get_submodule(name)) for name in anatomy.norm_names())
