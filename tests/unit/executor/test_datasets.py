"""Datasets: what fits a model, what does not, and what the importers make of files."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyxnode.executor.data import load_examples
from cyxnode.executor.graph import parse_graph
from cyxnode.executor.importers import import_dataset
from cyxnode.executor.task import check_task
from cyxnode.executor.tensors import read_tensors, write_tensors
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.ports import TrainTask
from executor_tasks import blob, document, node, small_document, small_task

GRAPH = parse_graph(json.dumps(small_document()))
X = np.zeros((4, 1, 4, 4), np.float32)
Y = np.array([0, 1, 2, 0])
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("names", {"x": X, "z": Y}, "data.train"),
    ("one missing", {"x": X}, "data.train"),
    ("lengths", {"x": X, "y": Y[:3]}, "data.train"),
    ("none", {"x": X[:0], "y": Y[:0]}, "data.train"),
    ("scalar", {"x": X, "y": np.array(1)}, "data.train"),
    ("image size", {"x": np.zeros((4, 1, 8, 8), np.float32), "y": Y}, "data.train.x"),
    ("type of x", {"x": X.astype(np.int64), "y": Y}, "data.train.x"),
    ("nan", {"x": X + np.float32("nan"), "y": Y}, "data.train.x"),
    ("type of y", {"x": X, "y": Y.astype(np.float32)}, "data.train.y"),
    ("label too large", {"x": X, "y": Y + 1}, "data.train.y"),
    ("label negative", {"x": X, "y": Y - 1}, "data.train.y"),
    ("shape of y", {"x": X, "y": Y[:, None]}, "data.train.y"),
]


@pytest.mark.parametrize(("tensors", "field"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_wrong_datasets_name_field_and_fix(tensors: dict[str, Any], field: str) -> None:
    data = write_tensors({name: np.asarray(value) for name, value in tensors.items()})
    with pytest.raises(LocalError) as caught:
        load_examples(data, GRAPH, "cross_entropy", part="train")
    assert caught.value.field == field
    assert caught.value.fix


def test_broken_blob_is_our_mistake_not_a_crash() -> None:
    with pytest.raises(LocalError, match=r"data\.validation"):
        load_examples(b"junk", GRAPH, "cross_entropy", part="validation")


def test_mse_takes_numbers_of_the_output_shape() -> None:
    good = write_tensors({"x": X, "y": np.zeros((4, 3), np.float32)})
    assert len(load_examples(good, GRAPH, "mse", part="train")) == 4
    with pytest.raises(LocalError, match="targets of shape"):
        load_examples(write_tensors({"x": X, "y": np.zeros(4, np.float32)}), GRAPH, "mse", part="train")


def test_indices_stay_inside_the_embedding() -> None:
    words = document(
        [
            node("words", "Embedding", num_embeddings=10, embedding_dim=4),
            node("flat", "Flatten", "words"),
            node("head", "Linear", "flat", in_features=20, out_features=3),
        ],
        [5],
        "int64",
    )
    graph = parse_graph(json.dumps(words))
    x = np.full((4, 5), 9, np.int64)
    assert load_examples(write_tensors({"x": x, "y": Y}), graph, "cross_entropy", part="train")
    for bad in (x + 1, x - 10):
        with pytest.raises(LocalError, match="indices"):
            load_examples(write_tensors({"x": bad, "y": Y}), graph, "cross_entropy", part="train")


def test_step_count_must_follow_from_the_data() -> None:
    task = small_task()
    assert len(check_task(task).train) == 64
    for changes, field in (({"steps": 23}, "steps"), ({"batch_size": 65, "steps": 3}, "batch_size")):
        with pytest.raises(LocalError) as caught:
            check_task(small_task(**changes))
        assert caught.value.field == field
    with pytest.raises(LocalError, match="steps"):
        check_task(TrainTask(task.spec, blob(32, 1), task.validation))


@pytest.mark.slow
def test_digits_are_split_the_same_way_each_time() -> None:
    pytest.importorskip("sklearn")
    one, two = import_dataset("digits"), import_dataset("digits")
    assert one == two
    assert (one.train_examples, one.validation_examples) == (1438, 359)
    assert (one.classes, one.input_shape) == (10, (1, 8, 8))
    train, held = read_tensors(one.train), read_tensors(one.validation)
    assert (train["x"].dtype, train["x"].min(), train["x"].max()) == (np.float32, 0, 1)
    assert set(held["y"]) == set(range(10))
    rows = {row.tobytes() for row in train["x"]}
    assert sum(row.tobytes() in rows for row in held["x"]) == 0


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(LocalError, match=r"pip install 'cyxnode\[datasets\]'"):
        import_dataset("digits")


def test_npz_with_and_without_a_split(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).random((50, 4)), np.arange(50, dtype=np.uint8) % 7
    np.savez(tmp_path / "plain.npz", x=x, y=y)
    plain = import_dataset(str(tmp_path / "plain.npz"))
    assert (plain.train_examples, plain.validation_examples, plain.classes) == (40, 10, 7)
    np.savez_compressed(
        tmp_path / "split.npz", x_train=x[:30], y_train=y[:30], x_validation=x[30:], y_validation=y[30:]
    )
    split = import_dataset(str(tmp_path / "split.npz"))
    assert (split.train_examples, split.validation_examples, split.input_shape) == (30, 20, (4,))
    assert read_tensors(split.train)["x"].dtype == np.float32


def write_npz(path: Path, kind: str) -> None:
    x, y = np.zeros((10, 4)), np.zeros(10, np.int64)
    match kind:
        case "pickle":
            np.savez(path, x=np.array([print] * 10, object), y=y)
        case "names":
            np.savez(path, a=x, b=y)
        case "lengths":
            np.savez(path, x=x, y=y[:5])
        case "text":
            np.savez(path, x=np.array([["a"]] * 10), y=y)
        case "few":
            np.savez(path, x=x[:3], y=y[:3])
        case "no zip":
            path.write_bytes(b"x" * 1000)
        case "empty":
            path.write_bytes(b"")
        case "bad member":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("x.npy", b"\x93NUMPY junk")
                archive.writestr("y.npy", b"")
        case "bomb":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
                for _ in range(600):
                    member.write(bytes(1 << 20))


@pytest.mark.parametrize("kind", ["pickle", "names", "lengths", "text", "few", "no zip", "empty", "bad member"])
def test_hostile_npz_is_one_line(tmp_path: Path, kind: str) -> None:
    write_npz(tmp_path / "data.npz", kind)
    with pytest.raises(LocalError) as caught:
        import_dataset(str(tmp_path / "data.npz"))
    assert caught.value.field == "dataset"
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    write_npz(tmp_path / "data.npz", "bomb")
    with pytest.raises(LocalError, match="unpacks to"):
        import_dataset(str(tmp_path / "data.npz"))


@pytest.mark.parametrize("source", ["nothing", "missing.npz", "", "x.pkl"])
def test_sources_that_do_not_exist(source: str) -> None:
    with pytest.raises(LocalError) as caught:
        import_dataset(source)
    assert caught.value.fix
