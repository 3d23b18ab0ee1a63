"""Exact worlds: small enough that every expectation is a sum, so that estimators have something to be wrong about."""

from aligntax.lab.tabular import HarmInformation, TabularPolicy

__all__ = ["HarmInformation", "TabularPolicy"]
