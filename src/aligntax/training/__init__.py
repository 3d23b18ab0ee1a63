"""Alignment training that pays little: projections, penalties and callbacks for TRL trainers."""
