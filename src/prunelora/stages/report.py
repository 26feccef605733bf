"""The stage report: figures and pages on the run."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelora.stages.base import Facts, Seconds, Stage

if TYPE_CHECKING:
    from prunelora.evaluation.work import Work
    from prunelora.report.results import RunResults
    from prunelora.report.table import Table
    from prunelora.stages.context import Run


class ReportStage(Stage):
    """Draw figures and write report.html and report.md."""

    stage: Literal["report"] = "report"

    makes_model: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("measure",)
    artefacts: ClassVar[Mapping[str, str]] = {
        "metrics.json": "metrics",
        "report.html": "report",
        "report.md": "report_markdown",
        "figures": "figures",
    }

    def run(self, run: "Run", name: str) -> Facts:
        """Write the report of the run."""
        from prunelora.report.run_page import write_report

        return {"files": write_report(run.results(), run.folder)}

    def files(self) -> tuple[str, ...]:
        """Both pages, the results as JSON, and the figures."""
        return ("report.html", "report.md", "metrics.json", "figures")

    def forecast(self, work: "Work", run: "Run", name: str) -> Seconds:
        """The time to write a report with the plan and made-up scores."""
        from prunelora.evaluation.outlook import made_up_scores
        from prunelora.models.anatomy import dissect
        from prunelora.report.run_page import write_report

        if run.plan is not None:
            number = sum(parameter.numel() for parameter in run.model.parameters())
            run = replace(run, importance=made_up_scores(dissect(run.model).architecture, num_parameters=number))
        started = time.perf_counter()
        write_report(run.results(), work.scratch / "report")
        seconds = time.perf_counter() - started
        return lambda: seconds

    def lines(self, results: "RunResults", facts: Facts) -> "list[str | Table]":
        """The files."""
        from prunelora.report.summary import files

        return list(files(results))
