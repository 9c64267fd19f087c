"""A run folder's evidence: facts as JSON, a page for people, a closing table."""

from nacre.report.evidence import gather, write_report
from nacre.report.facts import Evidence
from nacre.report.summary import run_figures, summary_json

__all__ = ["Evidence", "gather", "run_figures", "summary_json", "write_report"]
