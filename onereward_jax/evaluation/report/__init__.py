"""One HTML page, and one JSON file, with everything a run has shown."""

from onereward_jax.evaluation.report.inputs import Agreed, Curve, GridRow, ReportInputs
from onereward_jax.evaluation.report.remarks import remarks
from onereward_jax.evaluation.report.write import write_report

__all__ = ["Agreed", "Curve", "GridRow", "ReportInputs", "remarks", "write_report"]
