"""A language model in a real worker process: the same bits as here, streamed, walled in, and gone afterwards."""

from __future__ import annotations

import time
from dataclasses import replace

import psutil
import pytest

from cyxnode.executor.process import open_runner
from cyxnode.protocol.errors import ExecutionFailed, LocalError
from cyxnode.protocol.inference import TokensGenerated
from executor_tasks import small_task
from inference_models import Heard, ask, random_model

pytestmark = pytest.mark.slow


async def test_two_processes_generate_and_check() -> None:
    model, task = random_model(), ask("Hello", "Good day", temperature_micro=800_000)
    async with open_runner(device="cpu", warm=0) as runner:
        heard = Heard()
        async with runner.inference_session(model, task) as session:
            done = await session.generate(heard)
        assert "".join(event.text for event in heard.events if event.prompt_index == 1) == done[1].text
        async with runner.inference_session(model, task) as session:
            again = await session.generate(Heard())
            checks = [await session.check(claim) for claim in done]
            forged = await session.check(replace(done[0], generated_tokens=99))
        assert [(claim.tokens, claim.trace) for claim in again] == [(claim.tokens, claim.trace) for claim in done]
        assert [check.ok for check in checks] == [True, True]
        assert (forged.ok, forged.reason.partition(":")[0]) == (False, "generated_tokens")
        async with runner.inference_session(model, task) as session:
            assert (await session.check(done[0])).trace == checks[0].trace
        # the refused model costs its session, and the runner still trains
        async with runner.inference_session(replace(model, weights=b"junk"), task) as session:
            with pytest.raises(LocalError) as caught:
                await session.generate(Heard())
        assert (caught.value.field, bool(caught.value.fix)) == ("model.digest", True)
        with pytest.raises(LocalError, match=r"task\.top_k"):
            async with runner.inference_session(model, ask(top_k=0)):
                pass
        async with runner.session(small_task()) as trainer:
            assert len(await trainer.initial_state()) == 32


async def test_a_killed_worker_is_noticed_in_mid_stream() -> None:
    model = random_model(context=4096, width=64)
    async with (
        open_runner(device="cpu", warm=1) as runner,
        runner.inference_session(model, ask(num_predict=4000)) as session,
    ):

        async def kill(_: TokensGenerated) -> None:
            for process in [*psutil.Process(session.pid).children(recursive=True), psutil.Process(session.pid)]:
                process.kill()

        started = time.monotonic()
        with pytest.raises(ExecutionFailed, match="SIGKILL"):
            await session.generate(kill)
        assert time.monotonic() - started < 20
