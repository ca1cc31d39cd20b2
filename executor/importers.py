"""Datasets on the submitter's machine become two safetensors blobs: training, and a held-out split for validation.

Conversion happens here and never in a node. `digits` is scikit-learn's bundled set of 1,797 images of handwritten
digits; anything else is the path of a .npz file, which is read without pickle, or of a .txt file. The split is a fixed
function of the number of examples, so that everyone who imports the same data gets the same blobs and the same CIDs.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from ..protocol.errors import LocalError
from ..protocol.limits import DATASET_MAX_BYTES
from .order import permutation
from .tensors import Array, write_tensors
from .tokens import END

_SPLIT_SEED = 20
_HELD_OUT = 5
"""One example of five is held out."""
_SPLIT = ("x_train", "y_train", "x_validation", "y_validation")
TEXT_WINDOW = 64
"""Tokens of one example that is cut from a text."""
_OVERLAP = 8
"""Windows begin every TEXT_WINDOW / _OVERLAP tokens, so that the model sees each place at several positions."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """An imported dataset. `classes` is 0 when the targets are numbers rather than labels."""

    train: bytes
    validation: bytes
    train_examples: int
    validation_examples: int
    classes: int
    input_shape: tuple[int, ...]


def import_dataset(source: str, *, window: int = TEXT_WINDOW) -> Dataset:
    """Import 'digits' or the path of a .npz or .txt file. `window`: tokens of one example of a text.

    Raises LocalError with field 'dataset'.
    """
    if source == "digits":
        return _pack(*_split(*_digits()))
    path = Path(source)
    if path.suffix == ".txt":
        return _pack(*_split(*_text(path, window)))
    if path.suffix != ".npz":
        _refuse(f"{source[:80]!a} is no dataset", "use digits, or the path of a .npz or .txt file")
    return _pack(*_npz(path))


def _refuse(message: str, fix: str) -> NoReturn:
    raise LocalError(message, field="dataset", fix=fix)


def _digits() -> tuple[Array, Array]:
    """x: (1797, 1, 8, 8) float32 in [0, 1]; y: (1797,) int64."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        _refuse("digits needs scikit-learn", "pip install 'cyxnode[datasets]'")
    bunch = load_digits()
    x = (bunch.images / 16.0).astype(np.float32)[:, None]
    return x, bunch.target.astype(np.int64)


def _split(x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    order = permutation(_SPLIT_SEED, 0, len(x))
    held = len(x) // _HELD_OUT
    if held == 0:
        _refuse(f"has {len(x)} examples", f"at least {_HELD_OUT} are needed to hold some out")
    return x[order[held:]], y[order[held:]], x[order[:held]], y[order[:held]]


def _npz(path: Path) -> tuple[Array, Array, Array, Array]:
    try:
        _check_size(path)
        with np.load(path, allow_pickle=False) as archive:
            names = set(archive.files)
            if names == set(_SPLIT):
                parts = [archive[name] for name in _SPLIT]
            elif names == {"x", "y"}:
                parts = [archive["x"], archive["y"]]
            else:
                _refuse(f"{path} holds {sorted(names)[:5]}", f"store x and y, or {', '.join(_SPLIT)}")
    except FileNotFoundError:
        _refuse(f"{path} does not exist", "check the path")
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        _refuse(f"{path} cannot be read: {str(error)[:80]}", "write it with numpy.savez, without objects")
    cast = [_cast(part, str(path)) for part in parts]
    for x, y in zip(cast[::2], cast[1::2], strict=True):
        if x.ndim < 2 or y.ndim < 1 or len(x) != len(y) or len(x) == 0:
            _refuse(f"{path}: x has shape {x.shape}, y {y.shape}", "give each example one target")
    return (cast[0], cast[1], cast[2], cast[3]) if len(cast) == 4 else _split(cast[0], cast[1])


def _text(path: Path, window: int) -> tuple[Array, Array]:
    """Windows over a text's bytes and a final end token. x, y: (count, window) int64; y is x one token later.

    Windows overlap, so a held-out one has been read in part: its loss tells how well the text is known by heart.
    """
    try:
        if path.stat().st_size > DATASET_MAX_BYTES // (16 * _OVERLAP):
            _refuse(f"{path} is too large", f"at most {DATASET_MAX_BYTES // (16 * _OVERLAP) >> 10} KiB of text")
        data = path.read_bytes()
        data.decode()
    except FileNotFoundError:
        _refuse(f"{path} does not exist", "check the path")
    except (OSError, UnicodeDecodeError) as error:
        _refuse(f"{path} cannot be read: {str(error)[:80]}", "store text in UTF-8")
    tokens = np.append(np.frombuffer(data, np.uint8).astype(np.int64), END)
    if len(tokens) <= window:
        _refuse(f"{path} has {len(data)} bytes", f"at least {window} are needed for one example")
    views = np.lib.stride_tricks.sliding_window_view(tokens, window + 1)
    last = len(views) - 1
    starts = np.unique(np.append(np.arange(0, last, max(1, window // _OVERLAP)), last))
    return views[starts, :-1], views[starts, 1:]


def _check_size(path: Path) -> None:
    """Refuse a small file that unpacks to a huge one, before unpacking it."""
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > 2 * DATASET_MAX_BYTES:
        _refuse(f"{path} unpacks to {size >> 20} MiB", f"at most {2 * DATASET_MAX_BYTES >> 20} MiB")


def _cast(array: Array, name: str) -> Array:
    """Whole numbers become int64, other numbers float32."""
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    _refuse(f"{name} holds {array.dtype}", "store numbers")


def _pack(x_train: Array, y_train: Array, x_validation: Array, y_validation: Array) -> Dataset:
    if x_train.shape[1:] != x_validation.shape[1:] or y_train.shape[1:] != y_validation.shape[1:]:
        _refuse("has different shapes for training and validation", "store both alike")
    train = write_tensors({"x": x_train, "y": y_train})
    validation = write_tensors({"x": x_validation, "y": y_validation})
    for blob in (train, validation):
        if len(blob) > DATASET_MAX_BYTES:
            _refuse(f"has {len(blob) >> 20} MiB", f"at most {DATASET_MAX_BYTES >> 20} MiB")
    labels = y_train.dtype.kind == "i"
    classes = int(max(y_train.max(), y_validation.max())) + 1 if labels else 0
    return Dataset(train, validation, len(x_train), len(x_validation), classes, tuple(x_train.shape[1:]))
