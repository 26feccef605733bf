"""All kinds of stages, in the order of the commands."""

from prunelora.stages.base import Stage
from prunelora.stages.baseline import BaselineStage
from prunelora.stages.evaluate import EvaluateStage
from prunelora.stages.export import ExportStage
from prunelora.stages.finetune import FineTuneStage
from prunelora.stages.linear_probe import LinearProbeStage
from prunelora.stages.measure import MeasureStage
from prunelora.stages.merge import MergeStage
from prunelora.stages.plan import PlanStage
from prunelora.stages.prune import PruneStage
from prunelora.stages.report import ReportStage
from prunelora.stages.score import ScoreStage

KINDS: tuple[type[Stage], ...] = (
    LinearProbeStage,
    ScoreStage,
    PlanStage,
    PruneStage,
    FineTuneStage,
    MergeStage,
    EvaluateStage,
    ExportStage,
    BaselineStage,
    MeasureStage,
    ReportStage,
)
BY_KIND: dict[str, type[Stage]] = {stage.kind(): stage for stage in KINDS}
ARTEFACTS: dict[str, str] = {file: name for stage in KINDS for file, name in stage.artefacts.items()}
