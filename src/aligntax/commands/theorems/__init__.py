"""Rows of `aligntax theory`: every numbered item of the theory against an independent oracle, one module a section."""
