"""A results folder told as one HTML file that needs nothing else."""

from experiments.report.page import REPORT, write_report

__all__ = ["REPORT", "write_report"]
