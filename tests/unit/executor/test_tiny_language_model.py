"""A model that the executor itself trains on examples/tiny_lm.txt, which it then knows by heart."""

from __future__ import annotations

import pytest

from cyxnode.executor.inference_inprocess import InProcessInference
from inference_models import TEXT, answers, ask, judged, trained_model

pytestmark = pytest.mark.slow


async def test_a_trained_model_continues_its_text() -> None:
    model, task = trained_model(), ask("A harbour at night", "When three of them", num_predict=24)
    backend, text = InProcessInference(), TEXT.read_text()
    done = await answers(backend, model, task)
    for prompt, claim in zip(task.prompts, done, strict=True):
        assert (prompt + claim.text)[:36] in text
        assert (await judged(backend, model, task, claim)).ok
