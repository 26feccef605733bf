"""The parts of a loaded model, located by its family's row: blocks, sizes, task head, norms."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from prunelora.errors import UnsupportedModelError
from prunelora.models.architecture import Architecture
from prunelora.models.block import Block, check, find
from prunelora.models.families import family_of_model_type, supported_families
from prunelora.models.family import Family
from prunelora.models.lineage import Lineage
from prunelora.models.matrices import widths
from prunelora.models.source import SHAPES_KEY


@dataclass(frozen=True)
class Anatomy:
    """A model, its family, and its blocks."""

    model: nn.Module
    family: Family
    base_prefix: str  # "bert." for BertForSequenceClassification, "" for BertModel.
    blocks: tuple[Block, ...]

    @property
    def base(self) -> nn.Module:
        """The model without its task head: `model.bert` of BertForSequenceClassification."""
        return self.model.get_submodule(self.base_prefix.rstrip("."))

    @property
    def architecture(self) -> Architecture:
        """The present sizes, after any pruning."""
        first, config = self.blocks[0], cast(Any, self.model.config)
        return Architecture(
            family=self.family.name,
            hidden_size=widths(first.part("output"))[1],
            head_dim=first.head_dim,
            num_heads=tuple(block.num_heads for block in self.blocks),
            num_neurons=tuple(block.num_neurons for block in self.blocks),
            attention_bias=first.attention_bias,
            ffn_bias=first.neuron_bias,
            queries_per_head=first.queries_per_head,
            gated=self.family.gate is not None,
            position_projections=first.position_projections,
            relative_positions=_relative_positions(config),
            repeats=config.num_hidden_layers if self.family.repeated else 1,
        )

    @property
    def lineage(self) -> Lineage:
        """The ids of the present heads and neurons in the base model."""
        plan = getattr(self.model, "prunelora_plan", None)
        return plan.lineage if plan is not None else Lineage.whole(self.architecture)

    def norm_names(self) -> list[str]:
        """Names, within the whole model, of every norm outside the task head."""
        paths = [path for path in self.family.outer_norms if find(self.base, path) is not None]
        outer = [f"{self.base_prefix}{path}" for path in paths]
        return outer + [name for block in self.blocks for name in block.norm_names()]

    def task_head_names(self) -> list[str]:
        """Names, within the whole model, of the modules with parameters between the last block and the loss."""
        names = []
        if self.family.pooler is not None and find(self.base, self.family.pooler) is not None:
            names.append(f"{self.base_prefix}{self.family.pooler}")
        if self.base is not self.model:
            base_name = self.base_prefix.rstrip(".")
            # A language model's output embeddings are usually the tied input embeddings, so they are not a task head.
            embeddings = getattr(self.model, "get_output_embeddings", lambda: None)()
            names += [
                head
                for name, child in self.model.named_children()
                if name != base_name
                for head in _with_parameters(name, child, without=embeddings)
            ]
        return names


def dissect(model: nn.Module, *, adapted: bool = False) -> Anatomy:
    """Locate the parts of a model by its family's row, and check that they match the row.

    Args:
        model: A transformers model.
        adapted: Accept linear layers that an adapter wraps; then only names may be read, not weights.

    Raises:
        UnsupportedModelError: If the family has no row, the model carries an adapter, or it does not match the row.
    """
    family, config = _supported_family(model), cast(Any, model.config)
    prefix = str(getattr(model, "base_model_prefix", ""))
    base_prefix = f"{prefix}." if prefix and find(model, prefix) is not None else ""
    kv_heads = getattr(config, "num_key_value_heads", None)
    queries_per_head = config.num_attention_heads // kv_heads if kv_heads else 1
    blocks = tuple(
        Block(index, module, row, path, queries_per_head)
        for index, (module, row, path) in enumerate(_blocks(model, base_prefix, family))
    )
    if not adapted:
        for block in blocks:
            check(block)
    sizes = {block.head_dim for block in blocks}
    if len(sizes) > 1:
        raise UnsupportedModelError(
            f"{type(model).__name__} has heads of sizes {', '.join(map(str, sorted(sizes)))} in its encoder and "
            "decoder. Only models whose heads all have one size are supported."
        )
    return Anatomy(model, blocks[0].family, base_prefix, blocks)


def _supported_family(model: nn.Module) -> Family:
    """The row of a model's family, if the configuration is supported."""
    if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
        raise UnsupportedModelError(
            f"{type(model).__name__} carries an adapter, which wraps its weights. "
            "Call model = prunelora.merge(model) first."
        )
    config = getattr(model, "config", None)
    model_type = getattr(config, "model_type", None)
    if config is None or model_type is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} is not a transformers model: it has no config.model_type. "
            f"Supported families: {supported_families()}."
        )
    if SHAPES_KEY in vars(config):
        raise UnsupportedModelError(
            f"{type(model).__name__} is from a folder that prunelora.save wrote. plan.json there lists its heads and "
            "neurons. Load it with prunelora.load(folder) to prune it further."
        )
    family = family_of_model_type(model_type)
    if family is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} is of the family {model_type!r}, which prunelora does not support. "
            f"Supported families: {supported_families()}."
        )
    is_decoder, cross_attention = getattr(config, "is_decoder", False), getattr(config, "add_cross_attention", False)
    if cross_attention or (is_decoder and not family.decoder):
        role = "an encoder-decoder" if family.encoder_decoder else "an encoder"
        raise UnsupportedModelError(
            f"{type(model).__name__} is configured as a decoder (is_decoder={is_decoder}, "
            f"add_cross_attention={cross_attention}); {family.title} is supported "
            f"{'without cross-attention' if family.decoder else f'as {role}'}."
        )
    groups = getattr(config, "num_hidden_groups", 1)
    if groups != 1:
        raise UnsupportedModelError(
            f"{type(model).__name__} shares weights within each of {groups} groups of layers (num_hidden_groups). "
            "Only one group is supported."
        )
    return family


def _with_parameters(name: str, module: nn.Module, *, without: nn.Module | None) -> Iterator[str]:
    """Names of the outermost modules, from `module` down, that have parameters and do not contain `without`."""
    if without is not None and any(inner is without for inner in module.modules()):
        for child_name, child in module.named_children():
            yield from _with_parameters(f"{name}.{child_name}", child, without=without)
    elif any(True for _ in module.parameters()):
        yield name


def _blocks(model: nn.Module, base_prefix: str, family: Family) -> Iterator[tuple[nn.Module, Family, str]]:
    """Modules of all blocks with their rows and names, in forward order."""
    rows: dict[str, list[Family]] = {}
    for row in (family, *family.stacks):
        rows.setdefault(row.blocks, []).append(row)
    for path, parts in rows.items():
        layers = find(model, f"{base_prefix}{path}")
        if not isinstance(layers, nn.ModuleList) or not len(layers):
            raise UnsupportedModelError(
                f"{type(model).__name__}: no blocks at {base_prefix}{path}, where {family.title} keeps them."
            )
        for number, layer in enumerate(layers):
            yield from ((layer, _without_missing_gate(row, layer), f"{base_prefix}{path}.{number}") for row in parts)


def _without_missing_gate(row: Family, layer: nn.Module) -> Family:
    """The row as it applies to a layer: without the gate if only some models of the family have gates."""
    if row.gate and row.up_without_gate and find(layer, row.gate) is None:
        return replace(row, gate=None, up=row.up_without_gate)
    return row


def _relative_positions(config: Any) -> int:
    """2 * span positions for each of "c2p" and "p2c" (DeBERTa's names, as in its configuration); 0 without them."""
    if not getattr(config, "relative_attention", False):
        return 0
    maximum = config.max_relative_positions if config.max_relative_positions > 0 else config.max_position_embeddings
    span = config.position_buckets if config.position_buckets > 0 else maximum
    return 2 * span * len({"c2p", "p2c"} & set(config.pos_att_type or ()))
