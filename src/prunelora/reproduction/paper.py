"""The numbers of "Task-oriented Memory-efficient Pruning-Adapter" (Wang, Yang, Sun, 2023), with their tables.

A value that is not at hand is None; none is guessed.
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
    """One number of the paper.

    Attributes:
        value: The number; a share for accuracies; None if not at hand.
        printed: As the paper prints it; empty if not at hand.
        source: Its table: "table 1".
    """

    value: float | None
    printed: str
    source: str

    @property
    def text(self) -> str:
        """As printed, or that it is not at hand."""
        return self.printed if self.value is not None else NOT_AT_HAND


def _unknown(source: str) -> PaperValue:
    return PaperValue(None, "", source)


_KNOWN_ACCURACIES = {
    ("prune-lora", "mrpc"): PaperValue(0.6838, "68.38 %", "table 1"),
    ("prune-lora", "wnli"): PaperValue(0.5634, "56.34 %", "table 1"),
}

# Table 1: accuracy, by method and task.
ACCURACY: Final[Mapping[str, Mapping[str, PaperValue]]] = {
    method: {task: _KNOWN_ACCURACIES.get((method, task), _unknown("table 1")) for task in TASKS} for method in METHODS
}

# Table 1: points that Prune-LoRA loses to full fine-tuning, mean over these tasks.
LOSS_TASKS: Final = ("mnli", "mrpc", "qnli", "rte", "sst2")
LOSS_TO_FULL: Final = PaperValue(5.3, "\N{MINUS SIGN}5.3", "table 1")

# Table 2: inference memory and parameters.
INFERENCE_MEMORY: Final[Mapping[str, PaperValue]] = {method: _unknown("table 2") for method in METHODS}
PARAMETERS: Final[Mapping[str, PaperValue]] = {
    "full": PaperValue(109.48e6, "109.48 M", "table 2"),
    "lora": PaperValue(109.7e6, "109.7 M", "table 2"),
    "prune-lora": PaperValue(101.29e6, "101.29 M", "table 2"),
}

# Table 3: trained parameters.
TRAINED: Final[Mapping[str, PaperValue]] = {
    "full": _unknown("table 3"),
    "lora": PaperValue(259.6e3, "259.6 K", "table 3"),
    "prune-lora": PaperValue(308.7e3, "308.7 K", "table 3"),
}

# Table 4: training times, relative to each other.
TRAINING_TIME: Final[Mapping[str, PaperValue]] = {
    "full": PaperValue(49, "49", "table 4"),
    "lora": PaperValue(36, "36", "table 4"),
    "prune-lora": PaperValue(32, "32", "table 4"),
}


def time_to_full(method: str) -> float | None:
    """Training time of a method relative to full fine-tuning: 32 / 49 for prune-lora."""
    time, full = TRAINING_TIME[method].value, TRAINING_TIME["full"].value
    return time / full if time is not None and full is not None else None


# The text keeps 100 of 144 heads; the printed number of parameters is that of 101.
ALL_HEADS: Final = 144
HEADS_KEPT_BY_TEXT: Final = 100
HEADS_CUT_BY_TEXT: Final = ALL_HEADS - HEADS_KEPT_BY_TEXT
HEADS_CUT_BY_PARAMETERS: Final = 43

# The reported rows are GLUE's validation rows. Rows of the most frequent class, of all: 279 / 408 = 68.38 %.
MAJORITY_ROWS: Final[Mapping[str, tuple[int, int]]] = {"mrpc": (279, 408), "wnli": (40, 71)}
