"""Where everything of the ablation lies."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Folders.

    Attributes:
        data: With a folder for every task.
        runs: Of the trainings.
        results: Of the result files.
        glue: Of benchmarks.glue's results.
        peers: Of the trainings of benchmarks.peers, whose packaged recipes begin as variants here do.
    """

    data: Path
    runs: Path
    results: Path
    glue: Path
    peers: Path
