"""The methods of the study, their learning rates, and their records."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.tasks import FOUR
from benchmarks.trials import Method, Record, Trials

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results"
SEEDS = (0, 1, 2)
LORA = "lora"
TORCH_PRUNING = "torch-pruning"


@dataclass(frozen=True)
class Contender(Method):
    """A method of the study."""

    @property
    def cut_by(self) -> str | None:
        """Who cuts; None if nothing is cut."""
        if self.name.startswith(TORCH_PRUNING):
            return TORCH_PRUNING
        return "prunelora" if "plan" in self.resolved.names else None


CONTENDERS = {
    name: Contender(name, one["title"], FOLDER / "recipes" / f"{one['recipe']}.yaml", one.get("changes", {}))
    for name, one in yaml.safe_load((FOLDER / "methods.yaml").read_text(encoding="utf-8")).items()
}


def learning_rate(contender: str, task: str) -> float:
    """The learning rate that the ablation chose of two on validation rows."""
    if contender == "full":
        return 1.5e-4 if task in ("sst2", "mrpc") else 5e-5
    return 2e-3 if task == "sst2" else 1e-3


class Peers(Trials):
    """The records of the study."""

    results = RESULTS

    def everywhere(self, contender: str) -> list[Record]:
        """Records of a method on all tasks."""
        return [record for task in FOUR for record in self.of(task, contender)]
