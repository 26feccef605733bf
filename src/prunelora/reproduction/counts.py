"""Parameter counts of the paper's methods and of ours, from a model's configuration alone.

Models are built on torch's meta device, where tensors have shapes and no memory.
"""

import functools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedConfig

from prunelora.data.embedded import model_source
from prunelora.errors import CheckpointError, MissingExtraError
from prunelora.finetuning.adapter import add_adapter, trainable_parameters
from prunelora.models.anatomy import dissect
from prunelora.models.architecture import Architecture
from prunelora.models.families import family_of_model_type
from prunelora.models.family import ATTENTION_PROJECTIONS
from prunelora.models.lineage import Lineage
from prunelora.models.loading import read_config
from prunelora.planning.costs import head_parameters, lora_parameters
from prunelora.planning.plan import Plan
from prunelora.planning.ranks import default_num_high
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
        trained: All trained parameters, in full fine-tuning the whole model.
        total: Of encoder, pooler and LoRA, without the classifier, whose size depends on the task.
    """

    method: str
    way: str
    how: str
    heads: int
    lora: int
    norms: int
    task_head: int
    trained: int
    total: int


@dataclass(frozen=True)
class Counts:
    """All counts of one model: a row a method and way of counting."""

    model: str
    architecture: Architecture
    rows: tuple[Count, ...]

    def of(self, method: str, way: str = "paper", *, task_head: bool = False) -> Count | None:
        """Returns the first row of a method, with or without a trained task head; None if there is none."""
        wanted = (method, way, task_head)
        return next((row for row in self.rows if (row.method, row.way, bool(row.task_head)) == wanted), None)


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
    base, lineage = anatomy.architecture, anatomy.lineage
    whole = _size([anatomy.base])
    norms, task_head = (
        _size(map(anatomy.model.get_submodule, names)) for names in (anatomy.norm_names(), anatomy.task_head_names())
    )
    # 44 of BERT-base's 144 heads are 22 of MiniLM's 72.
    by_parameters, by_text = (
        round(cut * base.total_heads / paper.ALL_HEADS)
        for cut in (paper.HEADS_CUT_BY_PARAMETERS, paper.HEADS_CUT_BY_TEXT)
    )

    def row(method: str, way: str, how: str, *, cut: int = 0, lora: int, task_head: int = 0) -> Count:
        trained, total = lora + norms + task_head, whole - cut * head_parameters(base) + lora
        return Count(method, way, how, base.total_heads - cut, lora, norms, task_head, trained, total)

    uniform = lora_parameters(base.hidden_size, base.hidden_size, _UNITS * base.num_layers)
    more = lora_parameters(base.hidden_size, base.hidden_size, _MORE_UNITS * default_num_high(base.num_layers))
    rows = [
        Count("full", "paper", "encoder and pooler", base.total_heads, 0, 0, 0, trained=whole, total=whole),
        row("lora", "paper", "LoRA of rank 4 on q, k, v, and LayerNorms", lora=uniform),
        *(
            row(
                "prune-lora",
                "paper",
                f"{cut} heads cut; LoRA at the sizes before the cut",
                cut=cut,
                lora=uniform + more,
            )
            for cut in dict.fromkeys((by_parameters, by_text))
        ),
    ]
    dense = trained_lora(config, Plan.whole(lineage, rank=_RANK_DENSE))
    pruned = trained_lora(config, evenly_pruned(lineage, base.total_heads - by_text))
    how_pruned = f"{by_text} heads cut; rank {_RANK_HIGH} or {_RANK_LOW} at the pruned sizes"
    for also, trained in (("", 0), (", task head too", task_head)):
        rows += [
            row("lora", "ours", f"rank {_RANK_DENSE} on q, k, v and output{also}", lora=dense, task_head=trained),
            row("prune-lora", "ours", f"{how_pruned}{also}", cut=by_text, lora=pruned, task_head=trained),
        ]
    return Counts(model, base, tuple(rows))


def trained_lora(config: PreTrainedConfig, plan: Plan) -> int:
    """LoRA parameters of a model that is pruned by a plan and given its adapter."""
    with warnings.catch_warnings():
        # PEFT still uses old names of transformers.
        warnings.simplefilter("ignore", FutureWarning)
        return trainable_parameters(add_adapter(prune_(_empty(config), plan), plan))["lora"]


def evenly_pruned(lineage: Lineage, keep_heads: int) -> Plan:
    """A plan that spreads the kept heads evenly and gives the first third of the blocks the high rank.

    The heads of a real plan depend on scores: each head in a block of high rank instead of one of low rank adds
    4 x (8 - 4) x head_dim LoRA parameters.
    """
    layers = lineage.base.num_layers
    each, more = divmod(keep_heads, layers)
    high = default_num_high(layers)
    return Plan(
        base=lineage.base,
        heads=tuple(tuple(range(each + (layer < more))) for layer in range(layers)),
        neurons=lineage.neurons,
        ranks=dict.fromkeys(ATTENTION_PROJECTIONS, (_RANK_HIGH,) * high + (_RANK_LOW,) * (layers - high)),
    )


def _empty(config: PreTrainedConfig) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = AutoModelForSequenceClassification.from_config(config)
    return model


def _size(modules: Iterable[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
