"""Inputs on which an exported model is compared with torch: rows of the task, and random inputs of many lengths."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunelora.delivery.rotary import lengths_of_change
from prunelora.errors import ExportError
from prunelora.models.families import family_of_model_type
from prunelora.models.inputs import input_names, longest_input, random_inputs, reads_images

# (batch, sequence) of the traced example. Tracing makes a size of 1 a constant.
TRACED = (2, 8)
SHORT = ((1, 1), (1, 2), (1, 5), (3, 16), (4, 27))
# Longer inputs are compared only around lengths at which the model changes.
MOST_TOKENS = 4096
# Attention scores of an example have at most this many elements (1 GiB in float32), or as many as the weights.
MOST_SCORES = 2**28

# Names in configurations of lengths or distances at which attention or positions change.
_CHANGES = ("sliding_window", "local_attention", "position_buckets", "relative_attention_max_distance")


@dataclass(frozen=True)
class Example:
    """Inputs to compare.

    Attributes:
        inputs: Inputs of the exported model.
        torch_inputs: Inputs of the model in torch.
        kind: Description for error messages, such as "random input" or "rows of the task".
    """

    inputs: dict[str, torch.Tensor]
    torch_inputs: dict[str, Any]
    kind: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first input, such as (batch, sequence)."""
        return tuple(next(iter(self.inputs.values())).shape)


def traced_example(model: nn.Module) -> dict[str, torch.Tensor]:
    """Inputs on which the export is traced."""
    rows, tokens = TRACED
    longest = longest_input(model) or tokens
    generator = torch.Generator().manual_seed(0)
    return random_inputs(model, batch_size=rows, tokens=min(tokens, longest), generator=generator, padded=True)


def random_examples(model: nn.Module, *, short: bool = False) -> Iterator[Example]:
    """Random padded inputs: one row and several, from one token to the longest input.

    Padding is on the right and, if the task head does not read the first position, on the left too.

    Args:
        model: The model that is exported.
        short: Leave out long inputs.
    """
    generator = torch.Generator().manual_seed(1)
    longest = longest_tokens(model)
    sizes = [size for size in SHORT if size[1] <= longest]
    if not short and not reads_images(model):
        sizes += [size for tokens in _long(model, longest) if (size := _largest(model, tokens)) is not None]
    for rows, tokens in sizes:
        inputs = random_inputs(model, batch_size=rows, tokens=tokens, generator=generator, padded=True)
        yield Example(inputs, inputs, "random input")
        if not _reads_first_position(model) and bool((inputs["attention_mask"] == 0).any()):
            left_padded = _padded_on_the_left(inputs)
            yield Example(left_padded, left_padded, "random input padded on the left")


def example_of(batch: Mapping[str, Any], model: nn.Module) -> Example:
    """The example of a batch as `model(**batch)` takes it.

    Raises:
        ExportError: If an input of the model is missing.
    """
    names = input_names(model)
    if names[0] not in batch:
        raise ExportError(
            f"batch has no {names[0]}: its keys are {sorted(batch)}. Pass a batch as model(**batch) takes it."
        )
    torch_inputs = {name: value for name, value in batch.items() if name != "labels"}
    torch_inputs |= {name: torch.as_tensor(torch_inputs[name]) for name in names if name in torch_inputs}
    if "input_ids" not in names:
        return Example({name: torch_inputs[name] for name in names}, torch_inputs, "rows of the task")
    ids = torch_inputs["input_ids"]
    # Defaults of `model(**batch)`.
    defaults = {"attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    inputs = {name: torch_inputs[name] if name in torch_inputs else defaults[name] for name in names}
    return Example(inputs, torch_inputs, "rows of the task")


def longest_tokens(model: nn.Module) -> int:
    """Longest input of a model by its table of positions, else by its configuration, else 512."""
    config: Any = model.config
    configured = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return longest_input(model) or int(configured or 512)


def _reads_first_position(model: nn.Module) -> bool:
    """Whether the task head reads the first position, which then must not be padding; True for images."""
    config: Any = model.config
    family = family_of_model_type(config.model_type)
    reads = "first" if family is None or family.images else family.reads
    return reads == "first" or (reads == "pooling" and config.classifier_pooling == "cls")


def _long(model: nn.Module, longest: int) -> list[int]:
    """Lengths at which the model changes, the lengths just above them, and the longest length that is compared."""
    config: Any = model.config
    distances = {int(value) for name in _CHANGES if (value := getattr(config, name, None)) and int(value) > 0}
    within = {length for end in distances for length in (end, end + 1) if length <= longest}
    # Rotary embeddings that change with the length also serve inputs above the configured longest one.
    beyond = {length for end in lengths_of_change(model) for length in (end, end + 1)}
    return sorted(within | beyond | {min(longest, MOST_TOKENS, _tokens_that_fit(model, 1))})


def _largest(model: nn.Module, tokens: int) -> tuple[int, int] | None:
    """Two rows of a length if they fit into memory, else one row, else None."""
    return next(((rows, tokens) for rows in (2, 1) if tokens <= _tokens_that_fit(model, rows)), None)


def _tokens_that_fit(model: nn.Module, rows: int) -> int:
    config: Any = model.config
    scores = max(MOST_SCORES, sum(parameter.numel() for parameter in model.parameters()))
    return math.isqrt(scores // (rows * int(config.num_attention_heads)))


def _padded_on_the_left(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same rows with padding on the left."""
    padding = (inputs["attention_mask"] == 0).sum(1).tolist()
    return {
        name: torch.stack([row.roll(count) for row, count in zip(value, padding, strict=True)])
        for name, value in inputs.items()
    }
