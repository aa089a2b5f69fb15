"""One HTML page, and one JSON file, with everything a run has shown."""

from onereward_jax.evaluation.report.inputs import Curve, GridRow, ReportInputs
from onereward_jax.evaluation.report.write import write_report

__all__ = ["Curve", "GridRow", "ReportInputs", "write_report"]
