"""An encoder's weights: one safetensors file of float32 tensors whose metadata holds the configuration as JSON.

There is nothing in it that could be executed, and nothing is parsed before its SHA-256 fits. Shapes follow from the
configuration (`shapes`); heads are found by their tensors' names, and how many units and outputs they have by their
biases. A head has a hidden layer, or, if it has a gate, several, its experts (MMoE, Ma et al. 2018); heads that share
them each carry them, so that a file may hold any number of such families. What is wrong is reported all at once, by
tensor.

The table of a periodic field has a row for what is absent, one for the sine at each of its frequencies and one for each
cosine; the frequencies, in turns a unit of its number, stand beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from msgspec import Meta
from numpy.typing import NDArray

from obligor.errors import BadInput, IntegrityError, Problem, did_you_mean
from obligor.parts import write_whole

__all__ = [
    "FORMAT",
    "FREQUENCY_MAX",
    "Config",
    "Kind",
    "Tensors",
    "Weights",
    "dump",
    "parse",
    "read",
    "readout_size",
    "shapes",
    "unfit",
    "waves_of",
    "write",
]

FORMAT: Final = 1
FILE_BYTES_MAX = 2**30
WIDTH_MAX, HIDDEN_MAX, LAYERS_MAX, TAIL_MAX = 4096, 4096, 16, 8192
FIELDS_MAX, ROWS_MAX, OUTPUTS_MAX = 512, 2**22, 4096
FADING_MAX, FADING_DAYS_MAX = 8, 3650
WAVES_MAX = 256
FREQUENCY_MAX: Final = 2.0**20  # turns a unit: what is left of a turn stays exact

_CHOICES: Final = ("fading_days", "waves")  # keys that a configuration has only where it has them

Kind = Literal["gru", "linear_attention", "transformer"]
Tensors = Mapping[str, NDArray[np.float32]]
_HEAD = re.compile(r"head\.([A-Za-z0-9_]+)\.(norm_mean|norm_scale|hidden|hidden_bias|gate|gate_bias|out|out_bias)")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an encoder is; the shapes of all its tensors but the heads' follow from it."""

    kind: Kind
    width: Annotated[int, Meta(ge=1, le=WIDTH_MAX)]  # d: numbers a token
    hidden: Annotated[int, Meta(ge=1, le=HIDDEN_MAX)]  # h: numbers of y, what the encoder makes of an event
    sizes: Annotated[tuple[Annotated[int, Meta(ge=1, le=ROWS_MAX)], ...], Meta(min_length=1, max_length=FIELDS_MAX)]
    layers: Annotated[int, Meta(ge=1, le=LAYERS_MAX)] = 1  # of the Transformer; the others have one
    heads: Annotated[int, Meta(ge=1, le=HIDDEN_MAX)] = 1  # of attention; the GRU has one
    tail: Annotated[int, Meta(ge=0, le=TAIL_MAX)] = 0  # N: how many events the Transformer looks back; the others all
    format: Literal[1] = FORMAT
    # Days over each of which a sum of y fades to 1/e; none in files of before there were any.
    fading_days: Annotated[tuple[Annotated[int, Meta(ge=1, le=FADING_DAYS_MAX)], ...], Meta(max_length=FADING_MAX)] = ()
    waves: tuple[Annotated[int, Meta(ge=0, le=WAVES_MAX)], ...] = ()  # of each field its frequencies; (): none has any

    @property
    def rows(self) -> tuple[int, ...]:
        """The rows of each field's table: one a code, or of a periodic field the absent one, sines and cosines."""
        if not self.waves:
            return self.sizes
        return tuple(1 + 2 * k if k else size for k, size in zip(self.waves, self.sizes, strict=True))

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which fields are periodic."""
        return tuple(k > 0 for k in self.waves) or (False,) * len(self.sizes)

    def problems(self) -> Iterator[Problem]:
        """Yield what does not fit together."""
        if self.kind != "transformer" and self.layers != 1:
            yield Problem("$.layers", f"expected 1 for {self.kind!r}, got {self.layers}")
        if self.kind == "transformer" and self.tail == 0:
            yield Problem("$.tail", "expected the number of events that the Transformer looks back, got 0")
        per_head = 2 if self.kind == "transformer" else 1
        if self.kind != "gru" and self.hidden % (self.heads * per_head):
            yield Problem("$.heads", f"expected {per_head} x heads to divide hidden {self.hidden}, got {self.heads}")
        if len(set(self.fading_days)) < len(self.fading_days):
            yield Problem("$.fading_days", f"expected spans that differ, got {list(self.fading_days)}")
        if self.waves and (len(self.waves) != len(self.sizes) or not any(self.waves)):
            expected = f"expected none, or one number for each of {len(self.sizes)} fields, one above 0"
            yield Problem("$.waves", f"{expected}, got {list(self.waves)}")
        elif sum(self.rows) > ROWS_MAX:
            yield Problem("$.sizes", f"expected at most {ROWS_MAX} rows in all tables, got {sum(self.rows)}")

    def to_json(self) -> str:
        """Return the canonical JSON: all keys, sorted, without those that say that a choice was not made."""
        data = {key: value for key, value in msgspec.to_builtins(self).items() if value or key not in _CHOICES}
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Config:
        """Return what the JSON says; raises BadInput naming the key, what was expected and what came."""
        try:
            keys = msgspec.json.decode(text, type=dict[str, Any])
            if missing := [key for key in cls.__struct_fields__ if key not in keys and key not in _CHOICES]:
                raise BadInput([Problem(f"$.{key}", "expected the key, got none") for key in missing])
            config = msgspec.convert(keys, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadInput(f"an encoder's configuration: {error}") from error
        if problems := tuple(config.problems()):
            raise BadInput(problems)
        return config


@dataclass(frozen=True, slots=True)
class Weights:
    """A configuration and tensors that fit it."""

    config: Config
    tensors: Tensors
    heads: tuple[str, ...]  # in the order of their names
    sha256: str  # of the file
    metadata: Mapping[str, str]  # what else the writer put beside the configuration, such as what a head's outputs are

    def states_sha256(self) -> str:
        """Return a hash of all that a state depends on: encoders that differ in their heads alone share states."""
        digest = hashlib.sha256(self.config.to_json().encode())
        for name in shapes(self.config):
            if name != "readout.empty":
                digest.update(np.ascontiguousarray(self.tensors[name], "<f4").tobytes())
        return digest.hexdigest()


def readout_size(config: Config) -> int:
    """Return how many numbers a readout has.

    >>> readout_size(Config(kind="gru", width=32, hidden=128, sizes=(5, 9)))
    642
    """
    return (5 + len(config.fading_days)) * config.hidden + 2


def waves_of(periodic: tuple[bool, ...], frequencies: int) -> tuple[int, ...]:
    """Return a configuration's waves where so many frequencies are each periodic field's.

    >>> waves_of((False, True), 8), waves_of((False, False), 8)
    ((0, 8), ())
    """
    return tuple(frequencies if one else 0 for one in periodic) if any(periodic) else ()


def unfit(config: Config, sizes: tuple[int, ...], periodic: tuple[bool, ...]) -> str | None:
    """Return how an encoder's fields differ from a tokenizer's; None where they do not."""
    if config.sizes != sizes:
        return f"expected fields of {sizes} codes, as the tokenizer has, got {config.sizes}"
    if config.periodic != periodic:
        return f"expected periodic fields {_true(periodic)}, as the tokenizer has, got {_true(config.periodic)}"
    return None


def _true(flags: tuple[bool, ...]) -> list[int]:
    return [place for place, flag in enumerate(flags) if flag]


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of the encoder's tensors; the heads are not among them."""
    d, h = config.width, config.hidden
    found: dict[str, tuple[int, ...]] = {f"token.{i}": (rows, d) for i, rows in enumerate(config.rows)}
    found |= {f"frequency.{i}": (k,) for i, k in enumerate(config.waves) if k}
    if config.kind == "gru":
        found |= {"gru.weight_ih": (3 * h, d), "gru.weight_hh": (3 * h, h)}
        found |= {"gru.bias_ih": (3 * h,), "gru.bias_hh": (3 * h,)}
    elif config.kind == "linear_attention":
        found |= {f"la.{name}": (h, d) for name in ("query", "key", "value", "decay", "gate")}
        found |= {"la.decay_bias": (h,), "la.norm": (h,), "la.out": (h, h)}
    else:
        found["in"] = (h, d)
        for i in range(config.layers):
            layer = {
                "norm1": (h,),
                "qkv": (3 * h, h),
                "out": (h, h),
                "norm2": (h,),
                "up": (4 * h, h),
                "down": (h, 4 * h),
            }
            found |= {f"layer.{i}.{name}": shape for name, shape in layer.items()}
        found["final_norm"] = (h,)
    found["readout.empty"] = (readout_size(config),)
    return found


def dump(config: Config, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the file's bytes, the same for the same weights; raises BadInput where a tensor does not fit."""
    _check(config, tensors)
    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    return _sorted_header(safetensors.numpy.save(ordered, {**(metadata or {}), "config": config.to_json()}))


def write(path: Path, config: Config, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> str:
    """Write the file, whole or not at all, and return its SHA-256; raises as `dump` does."""
    content = dump(config, tensors, metadata)
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def read(path: Path, sha256: str) -> Weights:
    """Return the weights in a file; raises as `parse` does, and IntegrityError beyond FILE_BYTES_MAX."""
    size = path.stat().st_size
    if size > FILE_BYTES_MAX:
        raise IntegrityError(f"{path}: expected at most {FILE_BYTES_MAX} bytes of weights, got {size}")
    return parse(path.read_bytes(), sha256, str(path))


def parse(content: bytes, sha256: str, source: str = "weights") -> Weights:
    """Return the weights in a file's bytes.

    Raises IntegrityError where the hash does not fit or the file is cut off or damaged, before anything else is looked
    at, and BadInput, naming each tensor, where one is missing, unknown, of another type or shape, or not finite.
    """
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise IntegrityError(f"{source}: expected SHA-256 {sha256}, got {got} of {len(content)} bytes")
    header = _header(content, source)
    try:
        tensors = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise IntegrityError(f"{source}: no safetensors file: {error}") from error
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or "config" not in metadata:
        raise BadInput(f"{source}: expected the encoder's configuration as 'config' in the metadata, got {metadata!r}")
    config = Config.from_json(metadata["config"])
    rest = {key: value for key, value in metadata.items() if key != "config"}
    return Weights(config, tensors, _check(config, tensors), sha256, rest)


def _sorted_header(content: bytes) -> bytes:
    """Return the file with the keys of its header in order: the library writes metadata in an order of chance."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _header(content: bytes, source: str) -> dict[str, Any]:
    """Return the header; the library says that a file is cut off, this says at which tensor."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 + length:
        raise IntegrityError(f"{source}: expected a header of {length} bytes from byte 8 on, got {len(content)} in all")
    try:
        header = json.loads(content[8 : 8 + length])
    except ValueError as error:
        raise IntegrityError(f"{source}: expected a header of JSON, got {error}") from error
    if not isinstance(header, dict):
        raise IntegrityError(f"{source}: expected a header of tensors by name, got {type(header).__name__}")
    for name, entry in header.items():
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if name == "__metadata__" or not (isinstance(offsets, list) and len(offsets) == 2):
            continue  # the library judges the rest
        if isinstance(offsets[1], int) and 8 + length + offsets[1] > len(content):
            end = 8 + length + offsets[1]
            problem = Problem(_path(name), f"{source}: expected its bytes to end at {end}, got {len(content)} in all")
            raise IntegrityError(problem)
    return header


def _check(config: Config, tensors: Tensors) -> tuple[str, ...]:
    """Return the heads' names once every tensor fits."""
    problems = list(config.problems())
    if problems:
        raise BadInput(problems)
    expected = shapes(config)
    heads = sorted({match[1] for match in map(_HEAD.fullmatch, tensors) if match})
    for name in heads:
        expected |= _head_shapes(name, readout_size(config), tensors)
    for name in sorted({*expected, *tensors}):
        problems += [Problem(_path(name), message) for message in _wrong(name, expected, tensors)]
    if problems:
        raise BadInput(problems)
    return tuple(heads)


def _head_shapes(name: str, inputs: int, tensors: Tensors) -> dict[str, tuple[int, ...]]:
    """Return a head's shapes."""
    outputs, units = (_length(f"head.{name}.{part}", tensors) for part in ("out_bias", "hidden_bias"))
    found: dict[str, tuple[int, ...]] = {"hidden": (units, inputs), "hidden_bias": (units,)}
    if f"head.{name}.gate" in tensors:
        experts = _length(f"head.{name}.gate_bias", tensors)
        found = {part: (experts, *shape) for part, shape in found.items()}
        found |= {"gate": (experts, inputs), "gate_bias": (experts,)}
    found |= {"norm_mean": (inputs,), "norm_scale": (inputs,), "out": (outputs, units), "out_bias": (outputs,)}
    return {f"head.{name}.{part}": shape for part, shape in found.items()}


def _length(name: str, tensors: Tensors) -> int:
    """Return how long a bias is, or each of several; 1 where it is none, which is then reported."""
    tensor = tensors.get(name)
    return tensor.shape[-1] if tensor is not None and tensor.ndim and 0 < tensor.shape[-1] <= OUTPUTS_MAX else 1


def _wrong(name: str, expected: Mapping[str, tuple[int, ...]], tensors: Tensors) -> Iterator[str]:
    if name not in expected:
        yield f"expected no such tensor; {did_you_mean(name, tuple(expected))}"
    elif name not in tensors:
        yield f"expected float32 of shape {expected[name]}, got no such tensor"
    else:
        tensor = tensors[name]
        if tensor.dtype != np.float32 or tensor.shape != expected[name]:
            yield f"expected float32 of shape {expected[name]}, got {tensor.dtype} of shape {tensor.shape}"
        elif not np.isfinite(tensor).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(tensor))[0])
            yield f"expected finite numbers, got {float(tensor[place])!r} at {place}"
        elif name.startswith("frequency.") and np.abs(tensor).max() > FREQUENCY_MAX:
            yield f"expected frequencies of at most {FREQUENCY_MAX:.0f} turns a unit, got {np.abs(tensor).max()}"


def _path(name: str) -> str:
    return f"$['{name}']"
