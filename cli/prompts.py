"""Prompts and the options that go with them, as a task: checked here, before anything is sent.

Bytes are read as UTF-8 and never more of them than a task can hold.
"""

from __future__ import annotations

import re
import sys
from decimal import Decimal, DecimalException
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from ..protocol.errors import LocalError
from ..protocol.inference import InferTask, check_task
from ..protocol.limits import MICRO, MODEL_NAME_MAX_CHARS, PROMPT_MAX_BYTES, PROMPTS_MAX, TEMPERATURE_MICRO_MAX

LINES_MAX_BYTES = PROMPTS_MAX * (PROMPT_MAX_BYTES + 2)
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
_TEMPERATURE_FIX = f"write a number from 0 (greedy) to {TEMPERATURE_MICRO_MAX // MICRO} with at most six decimals"


def read_prompts(prompt: str | None, batch: Path | None) -> tuple[str, ...]:
    """One prompt, from the command line or else from standard input; or one a line of a file. '-' is standard input.

    LocalError names what is empty, too long, too many or no UTF-8.
    """
    if prompt is not None and batch is not None:
        raise LocalError("is given twice", field="prompt", fix="give --prompt or --batch")
    if batch is not None:
        return _batch(_file(batch))
    text = prompt if prompt is not None and prompt != "-" else _stdin()
    _check(text, "prompt")
    return (text,)


def parse_model(text: str) -> str:
    """A model's name on the market, or how its id begins."""
    if not _MODEL.fullmatch(text) or len(text) > MODEL_NAME_MAX_CHARS:
        fix = f"letters, digits and . _ : / - ({MODEL_NAME_MAX_CHARS} at most), as `cyxnode market models` lists them"
        raise LocalError(f"{text[:MODEL_NAME_MAX_CHARS]!r} is no model's name", field="model", fix=fix)
    return text


def parse_temperature(text: str) -> int:
    """'0.7' -> 700000, by decimal arithmetic."""
    try:
        scaled = Decimal(text) * MICRO
        micro = int(scaled)
    except (DecimalException, ValueError, OverflowError):
        raise LocalError(f"{text[:40]!r} is not a number", field="temperature", fix=_TEMPERATURE_FIX) from None
    if scaled != micro or not 0 <= micro <= TEMPERATURE_MICRO_MAX:
        raise LocalError(f"{text[:40]} is not allowed", field="temperature", fix=_TEMPERATURE_FIX)
    return micro


def make_task(prompts: tuple[str, ...], *, system: str, temperature: str, **law: int) -> InferTask:
    """All of it together. `law`: top_k, num_predict and seed, within their bounds."""
    if system:
        _check(system, "system")
    fields = {"prompts": prompts, "system": system, "temperature_micro": parse_temperature(temperature), **law}
    try:
        task = msgspec.convert(fields, InferTask)
    except msgspec.ValidationError as error:
        raise LocalError(str(error), field="task", fix="see `cyxnode submit infer --help`") from None
    check_task(task)
    return task


def _check(text: str, field: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # how Python hands over bytes of a command line that are no UTF-8
        raise LocalError("is not UTF-8", field=field, fix="write it in UTF-8") from None
    if size > PROMPT_MAX_BYTES:
        raise LocalError(f"has {size} bytes", field=field, fix=f"at most {PROMPT_MAX_BYTES}")
    if not text:
        raise LocalError("is empty", field=field, fix="write something")


def _batch(data: bytes) -> tuple[str, ...]:
    lines = _decoded(data, "batch").rstrip("\r\n").split("\n")
    if lines == [""]:
        raise LocalError("has no prompts", field="batch", fix="write one a line")
    if len(lines) > PROMPTS_MAX:
        raise LocalError(f"has {len(lines)} prompts", field="batch", fix=f"at most {PROMPTS_MAX}; split the file")
    prompts = tuple(line.removesuffix("\r") for line in lines)
    for number, line in enumerate(prompts, 1):
        _check(line, f"batch line {number}")
    return prompts


def _file(path: Path) -> bytes:
    if str(path) == "-":
        return _limited(sys.stdin.buffer, LINES_MAX_BYTES, "batch")
    try:
        with path.open("rb") as file:
            return _limited(file, LINES_MAX_BYTES, "batch")
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}", field="batch", fix="give the path of a text file") from None


def _stdin() -> str:
    if sys.stdin.isatty():
        click.echo("the prompt, please; Ctrl-D ends it", err=True)
    return _decoded(_limited(sys.stdin.buffer, PROMPT_MAX_BYTES + 2, "prompt"), "prompt").rstrip("\r\n")


def _limited(file: BinaryIO, most: int, field: str) -> bytes:
    data = file.read(most + 1)
    if len(data) > most:
        raise LocalError(f"has more than {most} bytes", field=field, fix=f"at most {PROMPT_MAX_BYTES} a prompt")
    return data


def _decoded(data: bytes, field: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LocalError(f"is not UTF-8: byte {error.start}", field=field, fix="save it as UTF-8") from None
