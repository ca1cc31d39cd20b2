"""A run as one HTML file that needs nothing else: no network, no fonts, no scripts but its own.

The report's JSON is put into a template beside this file, whose script draws every plot as SVG from it.
"""

from __future__ import annotations

import json
from importlib.resources import files

from .report import Report

TEMPLATE = "report.html"
DATA_MARK = "/*DATA*/null"
TITLE_MARK = "<!--TITLE-->"


def html_of(report: Report) -> str:
    """The page of a report with details. Text from the world cannot leave the script element it is put into."""
    template = (files(__package__) / TEMPLATE).read_text(encoding="utf-8")
    data = json.dumps(report, separators=(",", ":"), ensure_ascii=True)
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return template.replace(TITLE_MARK, f"cyxnode sim, seed {report['seed']}").replace(DATA_MARK, data)
