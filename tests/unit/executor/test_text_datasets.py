"""Plain text as a dataset: windows of bytes, shifted by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cyxnode.executor.data import load_examples
from cyxnode.executor.graph import parse_graph
from cyxnode.executor.importers import TEXT_WINDOW, import_dataset
from cyxnode.executor.tensors import read_tensors
from cyxnode.executor.tokens import END
from cyxnode.protocol.errors import LocalError
from inference_models import EXAMPLES, TEXT


def test_windows_cover_the_text_and_targets_are_one_token_later() -> None:
    dataset = import_dataset(str(TEXT))
    assert dataset == import_dataset(str(TEXT))
    assert dataset.input_shape == (TEXT_WINDOW,)
    assert dataset.classes == END + 1
    text = [*TEXT.read_bytes(), END]
    seen: set[int] = set()
    for blob in (dataset.train, dataset.validation):
        tensors = read_tensors(blob)
        for x, y in zip(tensors["x"].tolist(), tensors["y"].tolist(), strict=True):
            starts = [at for at in range(len(text) - TEXT_WINDOW) if text[at : at + TEXT_WINDOW + 1] == [*x, y[-1]]]
            assert starts
            assert y[:-1] == x[1:]
            seen.update(range(starts[0], starts[0] + TEXT_WINDOW + 1))
    assert seen == set(range(len(text)))
    assert dataset.validation_examples == (dataset.train_examples + dataset.validation_examples) // 5


def test_the_example_model_takes_them() -> None:
    dataset = import_dataset(str(TEXT))
    graph = parse_graph((EXAMPLES / "tiny_lm.json").read_bytes())
    assert len(load_examples(dataset.train, graph, "cross_entropy", part="train")) == dataset.train_examples


def test_the_window_is_a_choice(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("Größe zählt nicht.")
    dataset = import_dataset(str(path), window=8)
    assert dataset.input_shape == (8,)
    assert int(max(read_tensors(dataset.train)["y"].max(), read_tensors(dataset.validation)["y"].max())) == END


@pytest.mark.parametrize("content", [b"too short", b"", b"\xff\xfe not utf-8" * 20, None])
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LocalError) as caught:
        import_dataset(str(path))
    assert caught.value.field == "dataset"
    assert caught.value.fix


def test_a_text_that_would_become_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(b"")
    with path.open("r+b") as file:
        file.truncate(1 << 33)
    with pytest.raises(LocalError, match="too large"):
        import_dataset(str(path))
    assert np.prod(import_dataset(str(TEXT)).input_shape) == TEXT_WINDOW
