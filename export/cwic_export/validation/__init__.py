"""Validation of a bundle: every artefact against the eager graphs; docs/validation.md."""

from cwic_export.validation.report import Report
from cwic_export.validation.run import SCALES, validate_bundle

__all__ = ["SCALES", "Report", "validate_bundle"]
