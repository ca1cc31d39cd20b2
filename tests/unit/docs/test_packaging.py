"""The unit and the image start commands that exist, and give them time to end."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click

from cyxnode.cli.main import cli
from cyxnode.protocol.limits import STOP_TIMEOUT_S

PACKAGING = Path(__file__).resolve().parents[3] / "packaging"


def parses(words: list[str]) -> None:
    """The command exists and takes these options."""
    found: click.Command = cli
    while isinstance(found, click.Group):
        inner = found.get_command(click.Context(found), words[0])
        assert inner is not None, words
        found, words = inner, words[1:]
    found.make_context("cyxnode", list(words))


def test_the_unit_starts_a_bootstrap_node_and_waits_for_its_end() -> None:
    unit = (PACKAGING / "cyxnode-bootstrap.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    program, *words = shlex.split(command)
    assert program.endswith("/bin/cyxnode")
    parses(words)
    (patience,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(patience) > STOP_TIMEOUT_S
    assert "KillSignal=SIGTERM" in unit


def test_the_image_starts_a_bootstrap_node_and_asks_the_port_that_it_serves() -> None:
    image = (PACKAGING / "Dockerfile").read_text()
    (command,) = re.findall(r"^CMD (\[.+\])$", image, re.MULTILINE)
    words = json.loads(command)
    parses(words)
    assert words[words.index("--metrics") + 1] in re.findall(r"http://([\d.:]+)/health", image)
    assert re.search(r"^STOPSIGNAL SIGTERM$", image, re.MULTILINE)
    copied = re.findall(r"grep '\^(\w+)==' constraints", image)
    assert copied == ["torch"]
