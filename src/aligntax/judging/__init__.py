"""Judges of harm and refusal behind one interface."""
