"""Fine-tune a pretrained transformer so that the tuned model is also smaller and faster.

Names are imported at their first use, so that `import prunelora` and every `--help` are instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

from prunelora.version import __version__

_HOMES = {
    "score": "importance.score",
    "Importance": "importance.importance",
    "make_plan": "planning.make_plan",
    "Plan": "planning.plan",
    "prune_": "pruning.surgery",
    "masked": "pruning.masks",
    "add_adapter": "finetuning.adapter",
    "merge": "finetuning.adapter",
    "finetune": "finetuning.training",
    "save": "delivery.checkpoints",
    "load": "delivery.checkpoints",
    "export": "delivery.onnx",
    "measure": "evaluation.measurement",
    "compress": "run.execute",
    "PruneLoraError": "errors",
}

__all__ = [
    "Importance",
    "Plan",
    "PruneLoraError",
    "__version__",
    "add_adapter",
    "compress",
    "export",
    "finetune",
    "load",
    "make_plan",
    "masked",
    "measure",
    "merge",
    "prune_",
    "save",
    "score",
]

if TYPE_CHECKING:
    from prunelora.delivery.checkpoints import load, save
    from prunelora.delivery.onnx import export
    from prunelora.errors import PruneLoraError
    from prunelora.evaluation.measurement import measure
    from prunelora.finetuning.adapter import add_adapter, merge
    from prunelora.finetuning.training import finetune
    from prunelora.importance.importance import Importance
    from prunelora.importance.score import score
    from prunelora.planning.make_plan import make_plan
    from prunelora.planning.plan import Plan
    from prunelora.pruning.masks import masked
    from prunelora.pruning.surgery import prune_
    from prunelora.run.execute import compress


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
