"""Inputs that an exported model is compared with torch on: rows of the task, and random ones of many lengths."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunelora.delivery.rotations import lengths_of_change
from prunelora.errors import ExportError
from prunelora.models.families import family_of_model_type
from prunelora.models.inputs import input_names, longest_input, random_inputs, reads_images

# (batch, sequence) of the traced example. Neither is 1, which a graph would take for a constant.
TRACED = (2, 8)
SHORT = ((1, 1), (1, 2), (1, 5), (3, 16), (4, 27))
# Longer inputs are compared only where the model itself changes with the length.
MOST_TOKENS = 4096
# Attention scores of an example, in float32, take at most 1 GiB, or as much memory as the model's weights.
SCORES = 2**28

# Of configurations: lengths or distances at which attention or the positions of some families change.
_CHANGES = ("sliding_window", "local_attention", "position_buckets", "relative_attention_max_distance")


@dataclass(frozen=True)
class Example:
    """Inputs to compare.

    Attributes:
        inputs: Inputs of the exported model.
        given: Inputs of the model in torch.
        kind: For error messages: "random input" or "rows of the task".
    """

    inputs: dict[str, torch.Tensor]
    given: dict[str, Any]
    kind: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first input, such as (batch, sequence)."""
        return tuple(next(iter(self.inputs.values())).shape)


def traced_example(model: nn.Module) -> dict[str, torch.Tensor]:
    """The inputs that an export is traced with."""
    rows, tokens = TRACED
    longest = longest_input(model) or tokens
    generator = torch.Generator().manual_seed(0)
    return random_inputs(model, batch_size=rows, tokens=min(tokens, longest), generator=generator, padded=True)


def random_examples(model: nn.Module, *, short: bool = False) -> Iterator[Example]:
    """Random inputs: one row and several, of one token up to the longest input, padded.

    Padding is on the right; where the task head does not read the first place, on the left too.

    Args:
        model: Whose inputs.
        short: Leave out the long ones.
    """
    generator = torch.Generator().manual_seed(1)
    longest = longest_tokens(model)
    sizes = [size for size in SHORT if size[1] <= longest]
    if not short and not reads_images(model):
        sizes += [size for tokens in _long(model, longest) if (size := _largest(model, tokens)) is not None]
    for rows, tokens in sizes:
        inputs = random_inputs(model, batch_size=rows, tokens=tokens, generator=generator, padded=True)
        yield Example(inputs, inputs, "random input")
        if not _reads_first_place(model) and bool((inputs["attention_mask"] == 0).any()):
            left = _padded_on_the_left(inputs)
            yield Example(left, left, "random input padded on the left")


def example_of(batch: Mapping[str, Any], model: nn.Module) -> Example:
    """An example of a batch as `model(**batch)` takes it.

    Raises:
        ExportError: If an input of the model is missing.
    """
    names = input_names(model)
    if names[0] not in batch:
        raise ExportError(
            f"batch has no {names[0]}: its keys are {sorted(batch)}. Pass a batch as model(**batch) takes it."
        )
    given = {name: value for name, value in batch.items() if name != "labels"}
    given |= {name: torch.as_tensor(given[name]) for name in names if name in given}
    if "input_ids" not in names:
        return Example({name: given[name] for name in names}, given, "rows of the task")
    ids = given["input_ids"]
    # What `model(**batch)` fills in itself when it is not given.
    missing = {"attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    inputs = {name: given[name] if name in given else missing[name] for name in names}
    return Example(inputs, given, "rows of the task")


def longest_tokens(model: nn.Module) -> int:
    """Longest input of a model: of its table of positions, else what its configuration says, else 512."""
    config: Any = model.config
    named = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return longest_input(model) or int(named or 512)


def _reads_first_place(model: nn.Module) -> bool:
    """Whether a row's logits are those of its first place, which must be no padding then; images have none."""
    config: Any = model.config
    family = family_of_model_type(config.model_type)
    reads = "first" if family is None or family.images else family.reads
    return reads == "first" or (reads == "pooling" and config.classifier_pooling == "cls")


def _long(model: nn.Module, longest: int) -> list[int]:
    """Lengths around which something in the model changes, and the longest that are compared in any case."""
    config: Any = model.config
    distances = {int(value) for name in _CHANGES if (value := getattr(config, name, None)) and int(value) > 0}
    within = {length for end in distances for length in (end, end + 1) if length <= longest}
    # Rotations that change with the length are for inputs beyond the longest that the configuration names.
    beyond = {length for end in lengths_of_change(model) for length in (end, end + 1)}
    return sorted(within | beyond | {min(longest, MOST_TOKENS, _tokens_that_fit(model, 1))})


def _largest(model: nn.Module, tokens: int) -> tuple[int, int] | None:
    """Two rows of a length if they fit into the memory, else one, else None."""
    return next(((rows, tokens) for rows in (2, 1) if tokens <= _tokens_that_fit(model, rows)), None)


def _tokens_that_fit(model: nn.Module, rows: int) -> int:
    config: Any = model.config
    scores = max(SCORES, sum(parameter.numel() for parameter in model.parameters()))
    return math.isqrt(scores // (rows * int(config.num_attention_heads)))


def _padded_on_the_left(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same rows with their padding in front."""
    padding = (inputs["attention_mask"] == 0).sum(1).tolist()
    return {
        name: torch.stack([row.roll(count) for row, count in zip(value, padding, strict=True)])
        for name, value in inputs.items()
    }
