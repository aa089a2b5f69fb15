"""The report of a run: an HTML page and a JSON file with all results."""

from onereward_jax.evaluation.report.html_page import write_report
from onereward_jax.evaluation.report.report_data import (
    Agreed,
    ByPeople,
    Curve,
    GridRow,
    JudgeTrust,
    ReportInputs,
    RoundRow,
)
from onereward_jax.evaluation.report.warnings import remarks

__all__ = [
    "Agreed",
    "ByPeople",
    "Curve",
    "GridRow",
    "JudgeTrust",
    "ReportInputs",
    "RoundRow",
    "remarks",
    "write_report",
]
