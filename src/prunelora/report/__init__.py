"""Report: figures, report.html, report.md and the summary of a run."""
