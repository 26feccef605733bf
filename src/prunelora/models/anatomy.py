"""A live model seen through its family's row: blocks and their parts, sizes, task head, norms."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from transformers.pytorch_utils import Conv1D

from prunelora.errors import UnsupportedModelError
from prunelora.models.architecture import Architecture
from prunelora.models.empty import BiasOnly, NoHeads, NoNeurons
from prunelora.models.families import PROJECTIONS, Family, family_of_model_type, supported_families
from prunelora.models.lineage import Lineage
from prunelora.models.matrices import Matrix, widths


@dataclass(frozen=True)
class Block:
    """One transformer block of a live model."""

    index: int
    module: nn.Module
    family: Family
    prefix: str  # Name of the block within the whole model, such as "bert.encoder.layer.3".
    queries_per_head: int = 1

    def part(self, name: str) -> nn.Module:
        """The module that has a standard name such as "query", "down" or "attention"."""
        return self.module.get_submodule(self.family.path(name))

    def matrix(self, name: str) -> Matrix:
        """A projection by its standard name ("query", "up", "gate"), also where it is part of a fused layer."""
        family, module = self.family, self.part(name)
        rows = widths(module)[1]
        if name in ("query", "key", "value") and family.fused_attention:
            head = self.head_dim * self.num_heads
            query = head * self.queries_per_head
            start = {"query": 0, "key": query, "value": query + head}[name]
            return Matrix(module, start, query if name == "query" else head)
        if name in ("up", "gate") and family.fused_gate:
            # Which half is which does not matter: a neuron owns the same row of both.
            return Matrix(module, 0 if name == "up" else rows // 2, rows // 2)
        return Matrix(module, 0, rows)

    def replace(self, name: str, module: nn.Module) -> None:
        """Put `module` where the part of this standard name is."""
        self.module.set_submodule(self.family.path(name), module)

    def full_name(self, name: str) -> str:
        """Name of a part within the whole model: "bert.encoder.layer.3.attention.self.query"."""
        return f"{self.prefix}.{self.family.path(name)}"

    @property
    def num_heads(self) -> int:
        """H_l, 0 where no head is left; with grouped-query attention, key and value heads."""
        if isinstance(self.part("attention"), NoHeads):
            return 0
        rows = widths(self.part("key"))[1]
        shares = self.queries_per_head + 2 if self.family.fused_attention else 1
        return rows // (shares * self.head_dim)

    @property
    def head_dim(self) -> int:
        """d_h."""
        attention = self.part("attention")
        return attention.head_dim if isinstance(attention, NoHeads) else int(getattr(attention, self.family.head_dim))

    @property
    def num_neurons(self) -> int:
        """F_l, 0 where no neuron is left."""
        return widths(self.part("down"))[0]

    @property
    def attention_bias(self) -> bool:
        """Whether q, k and v have biases, or had, where no head is left."""
        attention = self.part("attention")
        if isinstance(attention, NoHeads):
            return attention.had_bias
        return self.matrix("query").bias is not None

    @property
    def position_projections(self) -> int:
        """Further projections whose rows go with the heads, or went, where no head is left."""
        attention = self.part("attention")
        if isinstance(attention, NoHeads):
            return attention.position_projections
        return len(self.with_heads())

    def with_heads(self) -> list[nn.Module]:
        """The family's further linear layers whose rows go with the heads, those that this model has."""
        found = (_submodule(self.module, path) for path in self.family.with_heads)
        return [module for module in found if module is not None]

    @property
    def ffn_bias(self) -> bool:
        """Whether up projections have biases, or had, where no neuron is left."""
        up = self.part("up")
        return up.had_bias if isinstance(up, NoNeurons) else self.matrix("up").bias is not None

    def norm_names(self) -> Iterator[str]:
        """Names of the block's norms within the whole model; some models have none where others of the family do."""
        return (
            f"{self.prefix}.{path}"
            for path in self.family.norms
            if any(True for _ in self.module.get_submodule(path).parameters())
        )


@dataclass(frozen=True)
class Anatomy:
    """A model, its family, and its blocks."""

    model: nn.Module
    family: Family
    base_prefix: str  # "bert." for BertForSequenceClassification, "" for BertModel.
    blocks: tuple[Block, ...]

    @property
    def base(self) -> nn.Module:
        """The encoder: `model.bert` of BertForSequenceClassification."""
        return self.model.get_submodule(self.base_prefix.rstrip("."))

    @property
    def architecture(self) -> Architecture:
        """The sizes as they are now, after whatever was pruned."""
        first, config = self.blocks[0], cast(Any, self.model.config)
        return Architecture(
            family=self.family.name,
            hidden_size=widths(first.part("output"))[1],
            head_dim=first.head_dim,
            num_heads=tuple(block.num_heads for block in self.blocks),
            num_neurons=tuple(block.num_neurons for block in self.blocks),
            attention_bias=first.attention_bias,
            ffn_bias=first.ffn_bias,
            queries_per_head=first.queries_per_head,
            gated=self.family.gate is not None,
            position_projections=first.position_projections,
            repeats=config.num_hidden_layers if self.family.repeated else 1,
        )

    @property
    def lineage(self) -> Lineage:
        """Which heads and neurons of the base model the present ones are."""
        plan = getattr(self.model, "prunelora_plan", None)
        return plan.lineage if plan is not None else Lineage.whole(self.architecture)

    def norm_names(self) -> list[str]:
        """Names, within the whole model, of every LayerNorm outside the task head."""
        outer = [f"{self.base_prefix}{path}" for path in self.family.outer_norms]
        return outer + [name for block in self.blocks for name in block.norm_names()]

    def task_head_names(self) -> list[str]:
        """Names, within the whole model, of the modules with parameters between the last block and the loss."""
        names = []
        if self.family.pooler is not None and _submodule(self.base, self.family.pooler) is not None:
            names.append(f"{self.base_prefix}{self.family.pooler}")
        if self.base is not self.model:
            base_name = self.base_prefix.rstrip(".")
            # A language model's head gives words back: that part is the embedding table again, and no head of a task.
            words = getattr(self.model, "get_output_embeddings", lambda: None)()
            names += [
                one
                for name, child in self.model.named_children()
                if name != base_name
                for one in _with_parameters(name, child, without=words)
            ]
        return names


def dissect(model: nn.Module, *, adapted: bool = False) -> Anatomy:
    """Find the parts of a model by its family's row, and check that they are what the row says.

    Args:
        model: A transformers model.
        adapted: Let its linear layers be wrapped by an adapter: for reading names, not weights.

    Raises:
        UnsupportedModelError: If the family has no row, the model carries an adapter, or it does not fit the row.
    """
    if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
        raise UnsupportedModelError(
            f"{type(model).__name__} carries an adapter; its own weights are hidden behind it. "
            "Call model = prunelora.merge(model) first."
        )
    config = getattr(model, "config", None)
    model_type = getattr(config, "model_type", None)
    if config is None or model_type is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} is not a transformers model: it has no config.model_type. "
            f"Supported families: {supported_families()}."
        )
    family = family_of_model_type(model_type)
    if family is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} is of the family {model_type!r}, which prunelora does not support. "
            f"Supported families: {supported_families()}."
        )
    if getattr(config, "add_cross_attention", False) or (getattr(config, "is_decoder", False) and not family.decoder):
        raise UnsupportedModelError(
            f"{type(model).__name__} is configured as a decoder (is_decoder={getattr(config, 'is_decoder', False)}, "
            f"add_cross_attention={getattr(config, 'add_cross_attention', False)}); {family.title} is supported "
            f"{'without cross-attention' if family.decoder else 'as an encoder'}."
        )
    prefix = str(getattr(model, "base_model_prefix", ""))
    base_prefix = f"{prefix}." if prefix and _submodule(model, prefix) is not None else ""
    base = model.get_submodule(base_prefix.rstrip("."))
    blocks_list = _submodule(base, family.blocks)
    if not isinstance(blocks_list, nn.ModuleList) or not len(blocks_list):
        raise UnsupportedModelError(
            f"{type(model).__name__}: no blocks at {base_prefix}{family.blocks}, where {family.title} keeps them."
        )
    groups = getattr(config, "num_hidden_groups", 1)
    if groups != 1:
        raise UnsupportedModelError(
            f"{type(model).__name__} shares weights within each of {groups} groups of layers (num_hidden_groups); "
            "one group that is run over and over is supported, as in the published checkpoints."
        )
    shared = getattr(config, "num_key_value_heads", None)
    queries = config.num_attention_heads // shared if shared else 1
    blocks = tuple(
        Block(index, module, family, f"{base_prefix}{family.blocks}.{index}", queries)
        for index, module in enumerate(blocks_list)
    )
    if not adapted:
        for block in blocks:
            _check(block)
    return Anatomy(model, family, base_prefix, blocks)


def _with_parameters(name: str, module: nn.Module, *, without: nn.Module | None) -> Iterator[str]:
    """Names of the largest modules, this one or those within it, that have parameters and do not hold `without`."""
    if without is not None and any(one is without for one in module.modules()):
        for inner, child in module.named_children():
            yield from _with_parameters(f"{name}.{inner}", child, without=without)
    elif any(True for _ in module.parameters()):
        yield name


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _check(block: Block) -> None:
    """Every projection must be the plain linear layer (or what pruning left of one) that the row promises."""
    headless = isinstance(block.part("attention"), NoHeads)
    for name in (*PROJECTIONS, *(("gate",) if block.family.gate else ())):
        if headless and name in ("query", "key", "value"):
            continue
        module = _submodule(block.module, block.family.path(name))
        if not isinstance(module, nn.Linear | Conv1D | BiasOnly | NoNeurons):
            found = "nothing" if module is None else type(module).__name__
            raise UnsupportedModelError(
                f"{block.full_name(name)}: expected torch.nn.Linear, found {found}. Quantised or adapted layers cannot "
                "be pruned: load the plain model, prune it, then quantise."
            )
    if not headless:
        expected = block.num_heads * block.queries_per_head * block.head_dim
        columns = widths(block.part("output"))[0]
        if columns != expected or not expected:
            raise UnsupportedModelError(
                f"{block.full_name('output')}: {block.num_heads} heads of size {block.head_dim}"
                f"{f', {block.queries_per_head} queries each,' if block.queries_per_head > 1 else ''} need {expected} "
                f"columns, found {columns}."
            )
