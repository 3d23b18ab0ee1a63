"""Section 1, the geometry of one layer: its rows in the order of the theory, written down in three files."""

from . import section1a, section1b, section1c
from .check import Row

ROWS: tuple[Row, ...] = (
    section1a.row_1_1,
    section1c.row_1_2,
    section1a.row_1_3,
    section1a.row_1_4,
    section1a.row_1_5,
    section1a.row_1_6,
    section1a.row_1_7,
    section1a.row_1_8,
    section1a.row_1_9,
    section1a.row_1_10,
    section1b.row_1_11,
    section1b.row_1_12,
    section1b.row_1_13,
    section1b.row_1_14,
    section1b.row_1_15,
    section1b.row_1_16,
    section1c.row_1_17,
    section1c.row_1_18,
)
