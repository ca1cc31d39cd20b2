"""Reports: their arithmetic, and a page that nothing from the world can break out of."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rich.console import Console

from cyxnode.simulation.html_report import html_of
from cyxnode.simulation.plan import Plan
from cyxnode.simulation.process import plan_from_json, plan_to_json
from cyxnode.simulation.report import brief, crashed, gini, percentile, spread
from cyxnode.simulation.terminal import LAWS, show_report


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.9, 0.99, 1.0)] == [1, 50, 90, 99, 100]
    assert percentile([7.0], 0.01) == percentile([7.0], 0.99) == 7.0
    assert percentile([], 0.5) is None
    assert spread([]) == {"count": 0, "p50": None, "p90": None, "p99": None}


def test_gini_of_known_distributions() -> None:
    assert gini([5, 5, 5, 5]) == 0
    assert gini([0, 0, 0, 1]) == pytest.approx(0.75)
    assert gini([1, 2, 3, 4]) == pytest.approx(0.25)
    assert gini([-3, 0, 0, 1]) == pytest.approx(0.75)  # a loss is nothing earned
    assert gini([]) == gini([0, 0]) == 0


def test_a_plan_survives_its_way_into_another_process() -> None:
    plan = Plan(seed=9, peers=3, minutes=1.25, cheats=("sybil", "spammer"), cheaters=0.2, drop=(1, 4))
    assert plan_from_json(plan_to_json(plan)) == plan


def test_a_world_that_broke_down_has_a_report() -> None:
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    show_report(console, crashed(5, "cyxnode sim run --seed 5", "the world broke down: KeyError: [x]"))
    said = console.export_text()
    assert LAWS[0] in said and "KeyError: [x]" in said and "cyxnode sim run --seed 5" in said
    console.file.close()


def _report(detail: str) -> dict[str, Any]:
    return {"seed": 1, "details": {"events": [[0.0, "job", detail]]}}


def test_text_from_the_world_stays_inside_the_script() -> None:
    page = html_of(_report("</script><script>alert(1)</script><!--&"))
    assert page.count("</script>") == html_of(_report("")).count("</script>") == 1
    assert "\\u003c/script\\u003e" in page


def test_the_page_loads_nothing() -> None:
    page = html_of(_report(""))
    assert re.findall(r"(?:https?:)?//[a-z][\w.]+", page.replace("http://www.w3.org/2000/svg", "")) == []
    assert not re.search(r"<(?:link|img|iframe)\b|@import|url\(|\bsrc=", page)
    assert "default-src 'none'" in page


def test_what_only_plots_need_is_not_printed() -> None:
    assert brief(_report("")) == {"seed": 1}
