"""What is asked is checked before anything is sent, and named."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import msgspec
import pytest

from command_line import Command, Ended, refused
from cyxnode.cli.prompts import make_task, parse_temperature, read_prompts
from cyxnode.cli.submit_infer import NAMES_SHOWN_MAX, patience_s, served_instead
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.limits import PROMPT_MAX_BYTES, PROMPTS_MAX
from cyxnode.protocol.messages import Capability
from inference_world import serving
from sample_messages import MESSAGES


class Stdin(io.TextIOWrapper):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")


@pytest.fixture
def ask(command: Command, home: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `cyxnode submit infer`, which refuses what it is asked before anything is made."""

    def run(*arguments: str, stdin: bytes = b"hello") -> Ended:
        monkeypatch.setattr(sys, "stdin", Stdin(stdin))
        ended = command("submit", "infer", *arguments)
        assert list(home.iterdir()) == []
        return ended

    return run


MODEL = ("--model", "tiny-lm")


@pytest.mark.parametrize(
    ("arguments", "field", "text"),
    [
        ((*MODEL, "--prompt", ""), "prompt", "is empty"),
        ((*MODEL, "--prompt", "x" * (PROMPT_MAX_BYTES + 1)), "prompt", f"at most {PROMPT_MAX_BYTES}"),
        ((*MODEL, "--prompt", "a\udcffb"), "prompt", "UTF-8"),
        ((*MODEL, "--prompt", "a", "--system", "x" * (PROMPT_MAX_BYTES + 1)), "system", "at most"),
        ((*MODEL, "--prompt", "a", "--batch", "b.txt"), "prompt", "--prompt or --batch"),
        ((*MODEL, "--batch", "/none.txt"), "batch", "No such file"),
        ((*MODEL, "--prompt", "a", "--temperature", "-0.1"), "temperature", "0 (greedy) to 2"),
        ((*MODEL, "--prompt", "a", "--temperature", "2.1"), "temperature", "0 (greedy) to 2"),
        ((*MODEL, "--prompt", "a", "--temperature", "hot"), "temperature", "not a number"),
        ((*MODEL, "--prompt", "a", "--temperature", "nan"), "temperature", "not a number"),
        ((*MODEL, "--prompt", "a", "--temperature", "0.0000001"), "temperature", "six decimals"),
        ((*MODEL, "--prompt", "a", "--num-predict", "0"), "num_predict", "4096"),
        ((*MODEL, "--prompt", "a", "--num-predict", "4097"), "num_predict", "4096"),
        ((*MODEL, "--prompt", "a", "--top-k", "0"), "top_k", "256"),
        ((*MODEL, "--prompt", "a", "--top-k", "257"), "top_k", "256"),
        ((*MODEL, "--prompt", "a", "--seed", "-1"), "seed", "range"),
        ((*MODEL, "--prompt", "a", "--seed", str(2**53 + 1)), "seed", "range"),
        ((*MODEL, "--prompt", "a", "--k", "4"), "k", "'3', '5', '7'"),
        ((*MODEL, "--prompt", "a", "--budget", "much"), "budget", "2.5"),
        ((*MODEL, "--prompt", "a", "--budget", "0"), "budget", "is zero"),
        ((*MODEL, "--prompt", "a", "--budget", "0.000149"), "budget", "0.000150 CYX or more"),
        (("--model", "what is this", "--prompt", "a"), "model", "market models"),
        (("--model", "", "--prompt", "a"), "model", "letters"),
        (("--model", "m" * 97, "--prompt", "a"), "model", "96 at most"),
        (("--model", "a\x1b[2J", "--prompt", "a"), "model", "letters"),
    ],
)
def test_a_bad_value_is_named_with_its_fix(ask: Command, arguments: tuple[str, ...], field: str, text: str) -> None:
    ended = ask(*arguments)
    refused(ended, field, text)
    assert len(ended.err) < 400


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", "is empty"), (b"\n\n", "is empty"), (b"a\xffb", "byte 1"), (b"x" * (PROMPT_MAX_BYTES + 9), "more than")],
)
def test_standard_input_that_is_no_prompt(ask: Command, data: bytes, text: str) -> None:
    for arguments in ((), ("--prompt", "-")):
        refused(ask(*MODEL, *arguments, stdin=data), "prompt", text)


@pytest.mark.parametrize(
    ("data", "field", "text"),
    [
        (b"", "batch", "no prompts"),
        (b"\n\n", "batch", "no prompts"),
        (b"a\n\nb\n", "batch line 2", "is empty"),
        (b"?\n" * (PROMPTS_MAX + 1), "batch", f"at most {PROMPTS_MAX}"),
        (b"a\n\xe4\n", "batch", "byte 2"),
        (b"a\n" + b"x" * (PROMPT_MAX_BYTES + 1), "batch line 2", "at most"),
    ],
)
def test_a_file_that_is_no_batch(ask: Command, tmp_path: Path, data: bytes, field: str, text: str) -> None:
    (tmp_path / "batch.txt").write_bytes(data)
    refused(ask(*MODEL, "--batch", str(tmp_path / "batch.txt")), field, text)


def test_prompts_are_read_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_prompts(" a\n", None) == (" a\n",)
    monkeypatch.setattr(sys, "stdin", Stdin("grüß\nGott\n".encode()))
    assert read_prompts(None, None) == ("grüß\nGott",)
    (tmp_path / "batch.txt").write_bytes(b"\xef\xbb\xbfone\r\n two\r\n")
    assert read_prompts(None, tmp_path / "batch.txt") == ("one", " two")


def test_temperatures_pass_through_no_float() -> None:
    assert [parse_temperature(text) for text in ("0", "0.7", "2", "0.000001")] == [0, 700_000, 2_000_000, 1]
    task = make_task(("a",), system="s", temperature="0.3", top_k=1, num_predict=2, seed=3)
    assert (task.temperature_micro, task.top_k, task.num_predict, task.seed, task.system) == (300_000, 1, 2, 3, "s")
    with pytest.raises(LocalError, match="temperature"):
        make_task(("a",), system="", temperature="1e999999999", top_k=1, num_predict=2, seed=3)


def test_a_model_that_nobody_serves_is_answered_with_what_is_served() -> None:
    capability = next(message for message in MESSAGES if isinstance(message, Capability))
    offers = serving().offers()
    none = msgspec.structs.replace(capability, models=())
    assert "nor any other model" in served_instead("x", [none])
    many = [
        msgspec.structs.replace(capability, models=(msgspec.structs.replace(offers[0], name=f"model{n}"),))
        for n in range(NAMES_SHOWN_MAX + 2)
    ]
    text = served_instead("x", many)
    assert "model0, model1" in text and text.endswith("and 2 more") and "model9" not in text


def test_many_tokens_are_given_more_time() -> None:
    few = make_task(("a",), system="", temperature="0", top_k=1, num_predict=128, seed=0)
    many = make_task(("a",) * 64, system="", temperature="0", top_k=1, num_predict=128, seed=0)
    assert patience_s(few) == 600
    assert patience_s(many) == 2 * 64 * 128 // 5
