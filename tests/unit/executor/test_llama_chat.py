"""What is asked of llama.cpp, and what its chunks amount to, without the library."""

from __future__ import annotations

from typing import Any

import pytest

from cyxnode.executor.llama_chat import ChatAnswer, chat_request
from cyxnode.protocol.errors import ExecutionFailed, LocalError
from cyxnode.protocol.inference import InferTask, TokensGenerated

USAGE = {"choices": [], "usage": {"prompt_tokens": 9}}


def chunk(text: str, *tokens: int, finish: str | None = None) -> dict[str, Any]:
    entries = [{"id": token, "logprob": -0.5} for token in tokens]
    return {"choices": [{"delta": {"content": text}, "logprobs": {"content": entries}, "finish_reason": finish}]}


def answered(*chunks: dict[str, Any]) -> tuple[ChatAnswer, list[TokensGenerated]]:
    answer = ChatAnswer(2)
    return answer, [event for one in chunks if (event := answer.add(one)) is not None]


def test_requests_differ_in_seed_by_prompt() -> None:
    task = InferTask(prompts=("a", "b"), system="S", temperature_micro=700_000)
    first, second = chat_request(task, 0), chat_request(task, 1)
    assert first["messages"] == [{"role": "system", "content": "S"}, {"role": "user", "content": "a"}]
    assert first["temperature"] == 0.7
    assert first["seed"] != second["seed"]


def test_chunks_are_pieces_and_the_one_with_the_reason_is_the_last() -> None:
    answer, events = answered(
        chunk(""), chunk("Good", 1), chunk("", 2), chunk(" day", 3, 4), chunk("", finish="stop"), USAGE
    )
    assert events == [
        TokensGenerated(2, 0, (1,), "Good", False),
        TokensGenerated(2, 1, (2,), "", False),
        TokensGenerated(2, 2, (3, 4), " day", False),
        TokensGenerated(2, 4, (), "", True),
    ]
    claim = answer.finished(64, 5)
    assert (claim.text, claim.tokens, claim.prompt_tokens, claim.generated_tokens) == ("Good day", (1, 2, 3, 4), 9, 4)
    assert (claim.prompt_index, claim.stop_reason, len(claim.trace)) == (2, "end", 16)


@pytest.mark.parametrize(("num_predict", "stop"), [(2, "length"), (3, "context")])
def test_an_answer_without_an_end_was_long_enough_or_had_no_room(num_predict: int, stop: str) -> None:
    answer, events = answered(chunk("a", 1), chunk("b", 2, finish="length"), USAGE)
    assert [event.last for event in events] == [False, True]
    assert answer.finished(num_predict, 5).stop_reason == stop


def test_an_answer_that_broke_off_is_none() -> None:
    answer, events = answered(chunk("a", 1))
    assert not events[-1].last
    with pytest.raises(ExecutionFailed, match="without an answer"):
        answer.finished(64, 5)


@pytest.mark.parametrize(
    ("kind", "error"), [("exceed_context_size_error", LocalError), ("server_error", ExecutionFailed)]
)
def test_an_error_says_whose_fault_it_is(kind: str, error: type[Exception]) -> None:
    answer, events = answered({"error": {"type": kind, "message": "too long"}})
    assert not events
    assert isinstance(answer.error, error) and "too long" in str(answer.error)
