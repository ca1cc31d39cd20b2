"""A node that serves no language model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from ..protocol.errors import ExecutionFailed
from ..protocol.inference import InferSpec
from ..protocol.messages import ModelOffer
from ..protocol.ports import InferenceSession


class NoModels:
    """Offers nothing."""

    def offers(self) -> tuple[ModelOffer, ...]:
        """None."""
        return ()

    def prepare(self, model: bytes) -> None:
        """There is nothing to load."""

    def session(self, spec: InferSpec) -> AbstractAsyncContextManager[InferenceSession]:
        """Raises ExecutionFailed when entered."""
        return self._session()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[InferenceSession]:
        raise ExecutionFailed("this node serves no model")
        yield

    def gpu_utilization_ppm(self) -> int | None:
        """Nothing runs."""
        return None
