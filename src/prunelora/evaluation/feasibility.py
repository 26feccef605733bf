"""What a model and a budget can give, told from the configuration alone, before any work."""

import dataclasses
import statistics
from typing import Any

import torch
from pydantic import ValidationError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from prunelora.data.embedded import model_source
from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.data.tokens import tokenise
from prunelora.errors import CheckpointError, DataError
from prunelora.models.anatomy import dissect
from prunelora.models.architecture import Architecture
from prunelora.planning.costs import block_macs, block_parameters, ceiling, head_parameters, neuron_parameters
from prunelora.planning.selection import count_to_keep


@dataclasses.dataclass(frozen=True)
class Feasibility:
    """Sizes, and bounds on what cutting can give.

    Attributes:
        architecture: Sizes of the encoder.
        parameters: Of the whole model with its task head, in all.
        parameters_left: After the cut.
        tokens: Length of the inputs that MACs are counted for.
        macs: Of all blocks, for one example.
        macs_left: Share of these that stays, 0..1.
        heads_left, neurons_left: Counts in all layers.
        speedup_heads_only: Bound on the blocks' speed if only the asked heads were cut and time followed MACs.
        speedup: The same for heads and neurons together.
        speedup_no_heads: Bound if every head were cut and no neuron.
        data: What the task data is like; None if none was given.
    """

    architecture: Architecture
    parameters: int
    parameters_left: int
    tokens: int
    macs: int
    macs_left: float
    heads_left: int
    neurons_left: int
    speedup_heads_only: float
    speedup: float
    speedup_no_heads: float
    data: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        a = self.architecture
        blocks = block_parameters(a)
        lines = [
            a.describe(),
            f"parameters: {self.parameters:,}, heads and neurons {blocks:,} of them ({blocks / self.parameters:.0%})",
            f"budget: {self.heads_left} of {a.total_heads} heads, {self.neurons_left} of {a.total_neurons} neurons",
            f"parameters after the cut: {self.parameters_left:,} ({self.parameters_left / self.parameters:.1%})",
            f"MACs of the blocks at {self.tokens} tokens: {self.macs / 1e6:,.0f} M, after the cut "
            f"{self.macs_left * self.macs / 1e6:,.0f} M ({self.macs_left:.1%})",
            f"speed ceiling (if time followed MACs): {self.speedup:.2f} times; cutting these heads alone "
            f"{self.speedup_heads_only:.2f} times; cutting every head and no neuron {self.speedup_no_heads:.2f} times",
        ]
        if self.data is not None:
            d = self.data
            lines.append(
                f"data: {d['rows']['train']} training rows, "
                + "".join(f"{d['rows'][split]} {split} rows, " for split in d["majority_rates"])
                + f"median length {d['median_tokens']:.0f} tokens"
                + "".join(
                    f", majority-class rate {rate:.1%}" + (f" ({split})" if len(d["majority_rates"]) > 1 else "")
                    for split, rate in d["majority_rates"].items()
                    if rate is not None
                )
            )
        return lines


def check(
    model: str,
    *,
    data: str | None = None,
    task: str | None = None,
    data_dir: str | None = None,
    keep_heads: int | float | None = 0.5,
    keep_ffn: int | float | None = 0.5,
    tokens: int = 128,
) -> Feasibility:
    """Tell what a budget gives for a model; only its configuration is read, no weights.

    Args:
        model: Folder, hub name, or "minilm".
        data: Task data to look at as well; see `prunelora.data.settings`.
        task: The same by the name of a task.
        data_dir: Folder with the files of the named task.
        keep_heads: As in `make_plan`.
        keep_ffn: As in `make_plan`.
        tokens: Length of the inputs, in tokens.

    Raises:
        PlanError: If the budget has no meaning for the model.
        UnsupportedModelError, CheckpointError, DataError: As the loading functions raise them.
    """
    try:
        config = AutoConfig.from_pretrained(model_source(model))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{model}: its configuration cannot be read ({str(error).splitlines()[0]}).") from error
    facts = None
    if data is not None or task is not None or data_dir is not None:
        rows = load_task(_source(data, task, data_dir))
        config.num_labels = rows.num_labels
        tokenizer = AutoTokenizer.from_pretrained(model_source(model))
        lengths = [len(ids) for ids in tokenise(rows.train, tokenizer, max_length=512)["input_ids"]]
        splits = {"train": rows.train, "validation": rows.validation} | rows.reported
        facts = {
            "rows": {name: len(split) for name, split in splits.items()},
            "median_tokens": statistics.median(lengths),
            "majority_rate": rows.majority_rate,
            "majority_rates": rows.majority_rates,
            "problem_type": rows.problem_type,
        }
    with torch.device("meta"):
        shell = AutoModelForSequenceClassification.from_config(config)
    a = dissect(shell).architecture
    heads = count_to_keep(keep_heads, a.total_heads, "keep_heads")
    neurons = count_to_keep(keep_ffn, a.total_neurons, "keep_ffn")
    parameters = sum(parameter.numel() for parameter in shell.parameters())
    cut = (a.total_heads - heads) * head_parameters(a) + (a.total_neurons - neurons) * neuron_parameters(a)
    head_share = heads / a.total_heads if a.total_heads else 1.0
    neuron_share = neurons / a.total_neurons if a.total_neurons else 1.0
    both = ceiling(a, tokens=tokens, keep_heads=head_share, keep_ffn=neuron_share)
    return Feasibility(
        architecture=a,
        parameters=parameters,
        parameters_left=parameters - cut,
        tokens=tokens,
        macs=block_macs(a, tokens=tokens).total,
        macs_left=both.macs_left,
        heads_left=heads,
        neurons_left=neurons,
        speedup_heads_only=ceiling(a, tokens=tokens, keep_heads=head_share, keep_ffn=1.0).speedup,
        speedup=both.speedup,
        speedup_no_heads=ceiling(a, tokens=tokens, keep_heads=0.0, keep_ffn=1.0).speedup,
        data=facts,
    )


def _source(data: str | None, task: str | None, data_dir: str | None) -> DataSettings:
    try:
        return DataSettings(data=data, task=task, data_dir=data_dir)
    except ValidationError as error:
        raise DataError(str(error.errors()[0]["msg"]).removeprefix("Value error, ") + ".") from error
