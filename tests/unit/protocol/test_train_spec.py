"""The specification of a training job: its segment arithmetic, its bounds, and the stability of its hash."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.protocol.limits import GRAPH_MAX_BYTES, SEGMENTS_MAX, STEPS_MAX
from cyxnode.protocol.spec import TrainSpec, encode_spec, spec_hash, steps_per_segment

CID = "bafkreie" + "a" * 51
FIELDS: dict[str, object] = {
    "graph": b"{}",
    "train_cid": CID,
    "validation_cid": CID,
    "loss": "cross_entropy",
    "optimizer": "adamw",
    "learning_rate_micro": 1_000,
    "weight_decay_micro": 0,
    "momentum_micro": 0,
    "batch_size": 32,
    "epochs": 2,
    "steps": 100,
    "steps_per_segment": 10,
    "seed": 7,
    "secret": b"s" * 32,
}


def spec(**changes: object) -> TrainSpec:
    """Build through the validator, as a decoder does."""
    return msgspec.convert(FIELDS | changes, TrainSpec, builtin_types=(bytes,))


@given(st.integers(1, 5_000), st.integers(1, 5_000))
def test_segments_cover_every_step_once_and_in_order(steps: int, per_segment: int) -> None:
    job = spec(steps=steps, steps_per_segment=per_segment)
    covered = [step for segment in range(job.segments) for step in job.segment_steps(segment)]
    assert covered == list(range(steps))
    assert all(1 <= len(job.segment_steps(segment)) <= per_segment for segment in range(job.segments))


@given(st.integers(1, STEPS_MAX), st.integers(1, SEGMENTS_MAX))
def test_a_wish_for_segments_is_never_exceeded(steps: int, wished: int) -> None:
    per_segment = steps_per_segment(steps, wished)
    assert per_segment >= 1
    assert spec(steps=steps, steps_per_segment=per_segment).segments <= min(wished, steps)


@given(st.integers(1, STEPS_MAX))
def test_the_default_segments_fit_the_protocol(steps: int) -> None:
    assert spec(steps=steps, steps_per_segment=steps_per_segment(steps)).segments <= SEGMENTS_MAX


def test_few_steps_make_one_segment_each() -> None:
    assert steps_per_segment(5) == 1
    assert spec(steps=5, steps_per_segment=1).segments == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("graph", b"x" * (GRAPH_MAX_BYTES + 1)),
        ("train_cid", "not a cid"),
        ("train_cid", CID + "\n"),
        ("validation_cid", "b" + "a" * 200),
        ("loss", "hinge"),
        ("optimizer", "lion"),
        ("learning_rate_micro", 0),
        ("learning_rate_micro", 0.1),
        ("learning_rate_micro", 10_000_001),
        ("weight_decay_micro", -1),
        ("momentum_micro", 1_000_000),
        ("batch_size", 0),
        ("batch_size", 65_537),
        ("epochs", 0),
        ("steps", 0),
        ("steps", STEPS_MAX + 1),
        ("steps_per_segment", 0),
        ("seed", -1),
        ("seed", 2**53 + 1),
        ("secret", b"s" * 31),
        ("secret", b"s" * 33),
        ("surprise", 1),
    ],
)
def test_each_bound_names_its_field(field: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        spec(**{field: value})


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_every_field_is_required(field: str) -> None:
    rest = {name: value for name, value in FIELDS.items() if name != field}
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert(rest, TrainSpec, builtin_types=(bytes,))


def test_the_hash_is_that_of_the_bytes_that_travel() -> None:
    encoded = encode_spec(spec())
    assert encoded == encode_spec(spec())
    assert msgspec.msgpack.decode(encoded, type=TrainSpec) == spec()
    assert spec_hash(encoded) != spec_hash(encode_spec(spec(seed=8)))


def test_two_equal_jobs_with_their_own_secrets_do_not_look_alike() -> None:
    assert spec_hash(encode_spec(spec())) != spec_hash(encode_spec(spec(secret=b"t" * 32)))


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        spec().seed = 1  # type: ignore[misc]
