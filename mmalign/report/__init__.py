"""The report of an evaluation: one HTML file with its pictures in it, which asks nobody for anything."""

from __future__ import annotations

from mmalign.report.written import pictures_of, report_bundle, report_run

__all__ = ["pictures_of", "report_bundle", "report_run"]
