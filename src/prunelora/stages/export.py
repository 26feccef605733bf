"""The stage export: writes the model as ONNX."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from prunelora.stages.base import Facts, Seconds, Stage

if TYPE_CHECKING:
    from prunelora.evaluation.work import Work
    from prunelora.stages.context import Run

# Validation rows on which the exported model is compared with torch.
COMPARED_ROWS = 32
MODEL = "model.onnx"


class ExportStage(Stage):
    """Write the model as ONNX and compare its logits with torch's."""

    stage: Literal["export"] = "export"
    tolerance: float = Field(1e-3, gt=0, description="Largest difference of a logit that is accepted.")

    makes_model: ClassVar[bool] = False
    plain_model: ClassVar[bool] = True
    of_final: ClassVar[bool] = True
    artefacts: ClassVar[Mapping[str, str]] = {MODEL: "export"}

    def check_packages(self) -> None:
        """Check that the packages of ONNX are installed."""
        from prunelora.delivery.onnx_packages import WITHOUT_EXPORT, require_packages

        require_packages(WITHOUT_EXPORT)

    def check(self, run: "Run", before: Sequence[Stage]) -> None:
        """Check that the model's family can be exported."""
        from prunelora.delivery.onnx import check_family
        from prunelora.models.anatomy import dissect

        check_family(dissect(run.model).family)

    def run(self, run: "Run", name: str) -> Facts:
        """Export the present model and compare it with torch."""
        from prunelora.delivery.onnx import compared, export

        path = run.path(name, MODEL)
        export(run.model, path, batches=_rows_to_compare(run), tolerance=self.tolerance)
        return {"file": path.name, "bytes": path.stat().st_size, **compared(path)}

    def files(self) -> tuple[str, ...]:
        """The ONNX model."""
        return (MODEL,)

    def forecast(self, work: "Work", run: "Run", name: str) -> Seconds:
        """An export, and the import of the exporter, which the first export of a process needs."""
        seconds = sum(work.export_seconds)
        return lambda: seconds


def _rows_to_compare(run: "Run") -> list[dict[str, Any]]:
    """Validation rows of all lengths, tokenised as for the metrics: the longest alone, and batches of several."""
    from prunelora.data.tokens import batches, by_length

    tokenised = run.tokenised("validation")
    order = by_length(tokenised)
    count = min(COMPARED_ROWS, len(order))
    chosen = [order[-1 - number * (len(order) - 1) // max(1, count - 1)] for number in range(count)]
    return [
        *batches(tokenised.select(chosen[:1]), run.processor, batch_size=1),
        *batches(tokenised.select(chosen), run.processor, batch_size=8),
    ]
