"""What a run takes, stage by stage, before it is begun."""

from dataclasses import asdict, dataclass
from typing import Any

from prunelora.evaluation.outlook import outlook_row


@dataclass(frozen=True)
class StageOutlook:
    """What a stage takes.

    Attributes:
        stage: Its name in the recipe.
        seconds: Expected wall time.
        memory_bytes: Most memory at once, counted from tensors; None where it is not counted.
    """

    stage: str
    seconds: float
    memory_bytes: int | None = None


@dataclass(frozen=True)
class RunOutlook:
    """What a run takes.

    Attributes:
        stages: In order.
        noise: How far the rounds of timing were from their medians, on average: 0.1 is 10 %.
        seconds_of_check: What it took to find out.
    """

    stages: tuple[StageOutlook, ...]
    noise: float
    seconds_of_check: float

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(one.seconds for one in self.stages)

    @property
    def memory_bytes(self) -> int | None:
        """Most memory of any stage; None where none was counted."""
        return max((one.memory_bytes for one in self.stages if one.memory_bytes is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "stages": [asdict(one) for one in self.stages],
            "seconds": self.seconds,
            "memory_bytes": self.memory_bytes,
            "noise": self.noise,
            "seconds_of_check": self.seconds_of_check,
        }

    def lines(self) -> list[str]:
        """For people."""
        return [
            outlook_row("the run, stage by stage", "seconds", "share", "memory"),
            *(
                outlook_row(
                    one.stage, f"{one.seconds:,.1f}", f"{one.seconds / self.seconds:.0%}", _mb(one.memory_bytes)
                )
                for one in self.stages
            ),
            outlook_row("all stages", f"{self.seconds:,.0f}", f"{self.seconds / 60:,.1f} min", _mb(self.memory_bytes)),
            f"reckoned in {self.seconds_of_check:,.0f} s from short pieces of the work, of which rounds differed by "
            f"{self.noise:.0%}; it holds as long as the machine is as busy as it was then",
        ]


def _mb(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:,.0f} MB"
