"""The numbers of "Task-oriented Memory-efficient Pruning-Adapter" (Wang, Yang, Sun, 2023), with their tables.

Numbers that are not at hand are left out; none is guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TITLE: Final = "Task-oriented Memory-efficient Pruning-Adapter"
AUTHORS: Final = "Wang, Yang, Sun (2023)"
MODEL: Final = "bert-base-uncased"
NOT_AT_HAND: Final = "not at hand"
NOT_IN_PAPER: Final = "not in the paper"

TASKS: Final = ("mnli", "mrpc", "qnli", "rte", "sst2", "wnli")

# The paper's rows, by our names of the methods: BERT fine-tuned, BERT with LoRA, Prune-LoRA.
METHODS: Final = ("full", "lora", "prune-lora")


@dataclass(frozen=True)
class PaperValue:
    """One number of the paper, of an accuracy the share, and its text as the paper prints it."""

    value: float
    printed: str


Row = Mapping[str, PaperValue]  # By method.

# Table 1: accuracy, by task.
ACCURACY: Final[Mapping[str, Row]] = {
    **{task: {} for task in TASKS},
    "mrpc": {"prune-lora": PaperValue(0.6838, "68.38 %")},
    "wnli": {"prune-lora": PaperValue(0.5634, "56.34 %")},
}

# Table 1: points that Prune-LoRA loses to full fine-tuning, mean over these tasks.
LOSS_TASKS: Final = ("mnli", "mrpc", "qnli", "rte", "sst2")
LOSS_TO_FULL: Final[Row] = {"prune-lora": PaperValue(5.3, "\N{MINUS SIGN}5.3")}

# Table 2: inference memory and parameters.
INFERENCE_MEMORY: Final[Row] = {}
PARAMETERS: Final[Row] = {
    "full": PaperValue(109.48e6, "109.48 M"),
    "lora": PaperValue(109.7e6, "109.7 M"),
    "prune-lora": PaperValue(101.29e6, "101.29 M"),
}

# Table 3: trained parameters.
TRAINED: Final[Row] = {"lora": PaperValue(259.6e3, "259.6 K"), "prune-lora": PaperValue(308.7e3, "308.7 K")}

# Table 4: training times, relative to each other.
TRAINING_TIME: Final[Row] = {
    "full": PaperValue(49, "49"),
    "lora": PaperValue(36, "36"),
    "prune-lora": PaperValue(32, "32"),
}

# The text keeps 100 of 144 heads; the printed number of parameters is that of 101.
ALL_HEADS: Final = 144
HEADS_CUT_BY_TEXT: Final = 44
HEADS_CUT_BY_PARAMETERS: Final = 43


def printed(row: Row, method: str) -> str:
    """A number as the paper prints it, or that it is not at hand or not in the paper."""
    if method not in METHODS:
        return NOT_IN_PAPER
    return row[method].printed if method in row else NOT_AT_HAND


def time_to_full(method: str) -> float | None:
    """Training time of a method relative to full fine-tuning: 32 / 49 for prune-lora."""
    return TRAINING_TIME[method].value / TRAINING_TIME["full"].value if method in TRAINING_TIME else None
