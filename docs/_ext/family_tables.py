"""Sphinx directive `{families}`: units and speed bounds of every family, at the default sizes of its configuration."""

from collections import Counter
from typing import Any

import torch
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from transformers import AutoConfig, AutoModel

from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.architecture import Architecture
from prunelora.models.families import FAMILIES
from prunelora.models.family import Family
from prunelora.planning.costs import head_parameters, neuron_parameters, speed_bound

TOKENS = 128
COLUMNS = (
    "family", "layers, width", "in attention", "parameters", "feed-forward", "parameters", "heads alone, at most",
    "30 % of the heads", "half of both",
)  # fmt: skip


class Families(SphinxDirective):
    """One row for every family."""

    def run(self) -> list[nodes.Node]:
        """Build every model without weights and count its parameters and MACs."""
        lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        lines += [f"| {' | '.join(_cells(family))} |" for family in FAMILIES.values()]
        table = nodes.Element()
        self.state.nested_parse(StringList(lines, "families"), self.content_offset, table)
        return table.children


def _cells(family: Family) -> tuple[str, ...]:
    anatomy = anatomy_of(family)
    sizes = anatomy.architecture
    group = f"groups of {sizes.queries_per_head} heads" if sizes.queries_per_head > 1 else "heads"
    return (
        family.title,
        f"{_layers(anatomy)}{f' run {sizes.repeats} times' if sizes.repeats > 1 else ''}, {sizes.hidden_size:,}",
        f"{sizes.num_heads[0]} {group} of {sizes.head_dim}",
        f"{head_parameters(sizes):,}",
        f"{sizes.num_neurons[0]:,} {'gated ' if sizes.gated else ''}neurons",
        f"{neuron_parameters(sizes):,}",
        _speed(sizes, 0, 1),
        _speed(sizes, 0.7, 1),
        _speed(sizes, 0.5, 0.5),
    )


def _speed(sizes: Architecture, keep_heads: float, keep_ffn: float) -> str:
    return f"{speed_bound(sizes, tokens=TOKENS, keep_heads=keep_heads, keep_ffn=keep_ffn):.2f}"


def _layers(anatomy: Anatomy) -> str:
    """Number of layers of the model, or of encoder and decoder: "12", "6 and 6"."""
    layers = {block.prefix: block.family.blocks for block in anatomy.blocks}
    return " and ".join(map(str, Counter(layers.values()).values()))


def anatomy_of(family: Family) -> Anatomy:
    """Anatomy of a family's model at transformers' default sizes, without weights."""
    with torch.device("meta"):
        return dissect(AutoModel.from_config(AutoConfig.for_model(family.model_types[0])))


def setup(sphinx: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    sphinx.add_directive("families", Families)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
