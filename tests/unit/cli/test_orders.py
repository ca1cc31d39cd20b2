"""Order files: everything that can be checked before anything is sent is checked, and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import EXAMPLES, order_file
from cyxnode.cli.order import load_plan
from cyxnode.protocol.errors import LocalError

pytestmark = pytest.mark.slow


def refused(path: Path, field: str, text: str = "") -> None:
    with pytest.raises(LocalError) as error:
        load_plan(path)
    assert error.value.field == field, str(error.value)
    assert error.value.fix and "\n" not in str(error.value)
    assert text in str(error.value), str(error.value)


def test_the_example_is_a_valid_order(tmp_path: Path) -> None:
    assert load_plan(EXAMPLES / "digits.toml").order_fields["budget"] > 0
    plan = load_plan(order_file(tmp_path, learning_rate="0.0025", budget_cyx='"0.5"', batch_size="32", epochs="12"))
    assert plan.order_fields["budget"] == 500_000
    assert plan.spec_fields["learning_rate_micro"] == 2_500
    assert plan.spec_fields["steps"] == 12 * (plan.dataset.train_examples // 32)


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("kind", '"cook"', "kind"),
        ("graph", '"none.json"', "model.graph"),
        ("graph", "3", "model.graph"),
        ("source", '"none.npz"', "data.source"),
        ("source", '"imagenet"', "data.source"),
        ("loss", '"hinge"', "training.loss"),
        ("optimizer", '"magic"', "training.optimizer"),
        ("learning_rate", "0", "training.learning_rate"),
        ("learning_rate", "nan", "training.learning_rate"),
        ("learning_rate", "1e-7", "training.learning_rate"),
        ("learning_rate", '"fast"', "training.learning_rate"),
        ("momentum", "1.5", "training.momentum"),
        ("batch_size", "0", "training.batch_size"),
        ("batch_size", "60000", "training.batch_size"),
        ("batch_size", "1.5", "training.batch_size"),
        ("epochs", "true", "training.epochs"),
        ("seed", "-1", "training.seed"),
        ("budget_cyx", '"0"', "job.budget_cyx"),
        ("budget_cyx", '"0.000149"', "job.budget_cyx"),
        ("budget_cyx", '"much"', "job.budget_cyx"),
        ("work_seconds", "1", "job.work_seconds"),
        ("device", '"tpu"', "job.device"),
        ("unsandboxed_ok", '"yes"', "job.unsandboxed_ok"),
        ("k", "4", "verification.k"),
        ("segments", "0", "verification.segments"),
        ("samples", "99", "verification.samples"),
        ("prise", "1", "job.prise"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, name: str, value: str, field: str) -> None:
    place = {"momentum": "training"}.get(name)
    path = order_file(tmp_path, **({} if place else {name: value}))
    if place:
        path.write_text(path.read_text().replace(f"[{place}]\n", f"[{place}]\n{name} = {value}\n"))
    refused(path, field)


def test_a_file_that_is_no_order(tmp_path: Path) -> None:
    refused(tmp_path / "none.toml", "order", "does not exist")
    (tmp_path / "order.toml").write_bytes(b"\xff\xfe")
    refused(tmp_path / "order.toml", "order")
    (tmp_path / "order.toml").write_text("kind = ")
    refused(tmp_path / "order.toml", "order")
    (tmp_path / "order.toml").write_text('kind = "train"\nmodel = 3\n')
    refused(tmp_path / "order.toml", "model", "write [model]")
    (tmp_path / "order.toml").write_text('kind = "train"\nprice = 3\n')
    refused(tmp_path / "order.toml", "price", "known here")


def broken_graph(folder: Path, change: Any) -> Path:
    graph = json.loads((EXAMPLES / "digits_cnn.json").read_text())
    change(graph)
    (folder / "graph.json").write_text(json.dumps(graph))
    return order_file(folder, graph=f'"{folder / "graph.json"}"')


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: graph["nodes"][0].update(op="Exec"),
        lambda graph: graph["nodes"][0]["args"].update(out_channels=10**9),
        lambda graph: graph["nodes"][0]["args"].update(nonsense=1),
        lambda graph: graph["nodes"][3].update({"in": ["nobody"]}),
        lambda graph: graph["nodes"][0].update({"in": ["head"]}),
        lambda graph: graph["nodes"][-1]["args"].update(in_features=511),
        lambda graph: graph.update(output="nobody"),
        lambda graph: graph.update(nodes=[]),
        lambda graph: graph["nodes"].append(graph["nodes"][0]),
        lambda graph: graph.update(version=99),
    ],
)
def test_a_broken_graph_is_refused_before_anything_is_sent(tmp_path: Path, change: Any) -> None:
    with pytest.raises(LocalError) as error:
        load_plan(broken_graph(tmp_path, change))
    assert error.value.field and error.value.fix and "\n" not in str(error.value)


def test_a_graph_that_does_not_fit_its_data(tmp_path: Path) -> None:
    def narrower(graph: Any) -> None:
        graph["nodes"][-1]["args"]["out_features"] = 9

    refused(broken_graph(tmp_path, narrower), "data.source", "10 classes")


def test_a_dataset_of_another_shape(tmp_path: Path) -> None:
    images, labels = np.zeros((64, 1, 9, 9), np.float32), np.zeros(64, np.int64)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_validation=images, y_validation=labels)
    refused(order_file(tmp_path, source='"data.npz"'), "data.source", "[1, 9, 9]")


def test_a_text_lies_beside_its_order(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text((EXAMPLES / "tiny_lm.txt").read_text())
    plan = load_plan(order_file(tmp_path, source='"text.txt"', graph=f'"{EXAMPLES / "tiny_lm.json"}"', batch_size="8"))
    assert plan.spec_fields["steps"] > 0


def test_a_file_that_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(LocalError) as error:
        load_plan(order_file(tmp_path, source='"data.npz"'))
    assert error.value.field and error.value.fix
