"""What an index knows: files, moments, and the bytes they are kept as."""

from __future__ import annotations

import datetime
import json
import math
import re
import struct
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eaglenet_mm.search.errors import DamagedIndexError

#: Columns of a file in a store; the last counts its moments.
FACTS = 'path', 'size', 'changed', 'duration', 'error', 'tags', 'num_moments'
#: Columns of files and moments, in parts with a checksum each.
PARTS: dict[str, tuple[str, ...]] = {
    'videos': FACTS,
    'moments': ('start', 'end'),
    'vectors': ('vector',),
    'features': ('times', 'features', 'state'),
    'thumbnails': ('thumbnail',),
}
MOMENT_PARTS = list(PARTS)[1:]
_NO_TEXT = '\ufdd0'  # no character, so that it stands for what is none
#: How numbers may be kept, the most exact first.
PRECISIONS = ('float32', 'float16')


@dataclass(frozen=True)
class IndexedFile:
    """A video file that was indexed, or that could not be read.

    Args:
        path (str): Absolute path.
        size (int): Bytes when it was read, to recognise it.
        changed (int): Time of its last change, in nanoseconds.
        duration (float): Seconds; 0 if unknown.
        error (str): Why it could not be read; empty if it could.
        tags (tuple[str, ...]): Words to filter by.

    Example:
        >>> IndexedFile('/videos/dog.mp4', 0, 0, error='empty').error
        'empty'
    """

    path: str
    size: int
    changed: int
    duration: float = 0.0
    error: str = ''
    tags: tuple[str, ...] = ()

    def to_row(self, num_moments: int) -> tuple:
        """Make the columns :data:`FACTS`, and their checksum."""
        lines = [f'\n{json.dumps(tag)}' for tag in dict.fromkeys(self.tags)]
        facts = (
            encode_path(self.path),
            self.size,
            self.changed,
            float(self.duration),
            self.error.encode('utf-8', 'replace').decode(),
            f'[{",".join(lines)}]',
            num_moments,
        )
        return *facts, checksum(*facts)

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> IndexedFile:
        """Read :data:`FACTS`."""
        path, size, changed, duration, error, tags, _ = row
        path = re.sub(f'{_NO_TEXT}(....)', lambda x: chr(int(x[1], 16)), path)
        tags = tuple(json.loads(tags))
        return cls(path, size, changed, duration, error, tags)


def encode_path(path: str) -> str:
    """Make text of the name of a file, which need not be text."""
    return re.sub(
        f'[\udc80-\udcff{_NO_TEXT}]',
        lambda x: f'{_NO_TEXT}{ord(x[0]):x}',
        path,
    )


@dataclass(frozen=True)
class Moment:
    """A video, or a segment of one, that can be found.

    Args:
        moment_id (int): Its number in the index, which never changes.
        file (IndexedFile): The file it is a part of.
        start (float): First second.
        end (float): Last second.
    """

    moment_id: int
    file: IndexedFile
    start: float
    end: float


@dataclass(frozen=True)
class MomentFilter:
    """Which files a search is limited to; an empty one allows all.

    Args:
        path (str): A folder or file by its absolute path; or a pattern with
            ``*``, ``?`` or ``[...]``, matched against the whole path if it
            begins with ``/``, else against its end.
        after (float, optional): Seconds since 1970; files changed earlier
            are left out.
        before (float, optional): Likewise; files changed then or later.
        min_duration (float, optional): Seconds of the file at least.
        max_duration (float, optional): Seconds of the file at most.
        tags (tuple[str, ...]): Tags that a file must have, all of them.

    Raises:
        ValueError: If a value is of another kind or no number.

    Example:
        >>> MomentFilter.parse(path='*.mkv', after='2026-11-27').path
        '*.mkv'
        >>> bool(MomentFilter())
        False
    """

    path: str = ''
    after: float | None = None
    before: float | None = None
    min_duration: float | None = None
    max_duration: float | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (
            _is_text(self.path, 'surrogateescape')
            and isinstance(self.tags, tuple)
            and all(_is_text(tag) for tag in self.tags)
        ):
            raise ValueError(
                'A filter takes path as text and tags as a tuple of texts, '
                f'without NUL, not {self.path!r} and {self.tags!r}.'
            )
        for name in ('after', 'before', 'min_duration', 'max_duration'):
            value = getattr(self, name)
            if value is not None and not (
                isinstance(value, int | float)
                and abs(value) <= sys.float_info.max
            ):
                raise ValueError(
                    f'{name} of a filter must be a finite number of seconds, '
                    f'not {value!r}.'
                )

    def __bool__(self) -> bool:
        return self != MomentFilter()

    @property
    def glob(self) -> str:
        """str: The pattern that a whole path must match; empty for all."""
        if not self.path or not any(sign in self.path for sign in '*?['):
            return ''
        return self.path if self.path.startswith('/') else f'*{self.path}'

    def to_sql(self) -> tuple[str, list[str | int | float]]:
        """Make a condition on :data:`FACTS` and the values of its ``?``."""
        tests: list[tuple] = []
        if self.glob:
            tests.append(('path GLOB ?', encode_path(self.glob)))
        elif self.path:
            path = encode_path(self.path.rstrip('/'))
            below = f'{path}/', f'{path}0'  # which comes after '/'
            tests.append(('(path = ? OR path > ? AND path < ?)', path, *below))
        for test, bound, kind in (
            ('changed >= ?', self.after, _nanoseconds),
            ('changed < ?', self.before, _nanoseconds),
            ('duration >= ?', self.min_duration, float),
            ('duration <= ?', self.max_duration, float),
        ):
            if bound is not None:
                tests.append((test, kind(bound)))
        for tag in self.tags:  # each begins a line of JSON
            tests.append(('instr(tags, ?) > 0', f'\n{json.dumps(tag)}'))
        return (
            ' AND '.join(condition for condition, *_ in tests),
            [value for _, *values in tests for value in values],
        )

    @classmethod
    def parse(
        cls,
        path: str = '',
        after: str = '',
        before: str = '',
        min_duration: str = '',
        max_duration: str = '',
        tags: Sequence[str] = (),
    ) -> MomentFilter:
        """Read a filter from text.

        Args:
            path (str): See the class.
            after (str): A date or time such as ``2026-11-27`` or
                ``2026-11-27T18:30``, local unless it names a zone.
            before (str): Likewise.
            min_duration (str): Such as ``10s`` or ``1.5m``.
            max_duration (str): Likewise.
            tags (Sequence[str]): Tags.

        Raises:
            ValueError: If a text is none of these.
        """
        return cls(
            path,
            _parse_time('after', after),
            _parse_time('before', before),
            parse_seconds(min_duration) if min_duration else None,
            parse_seconds(max_duration) if max_duration else None,
            tuple(tags),
        )


def _nanoseconds(seconds: float) -> int:
    """Round up, within what an int64 can hold."""
    return math.ceil(max(-9e9, min(seconds, 9e9)) * 1e9)


def _is_text(value: Any, errors: str = 'strict') -> bool:
    """Whether a value is text that a store can compare with."""
    try:
        return b'\0' not in value.encode('utf-8', errors)
    except (AttributeError, UnicodeEncodeError):
        return False


def parse_seconds(text: str) -> float:
    """Read a length of time: ``10``, ``10s``, ``1.5m``."""
    found = re.fullmatch(r'(\d+(?:\.\d*)?)\s*(s|m|)', text.strip())
    seconds = float(found[1]) * (60 if found[2] == 'm' else 1) if found else 0
    if not seconds:
        raise ValueError(
            f"A length of time is written as '10s' or '1.5m', not {text!r}."
        )
    return seconds


def _parse_time(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"{name} must be a date such as '2026-11-27' or a time such as "
            f"'2026-11-27T18:30', not {text!r}."
        ) from None


@dataclass
class Moments:
    """The encoded rows of one file: the whole video, or its segments.

    Args:
        spans (Tensor): First and last second, float64, shape ``(n, 2)``.
        vectors (Tensor): Of the first stage, shape ``(n, C)``.
        times (Tensor): Seconds at which frames are shown, NaN where padded,
            shape ``(n, F)``.
        features (dict[str, Tensor]): Fields of
            :class:`~eaglenet_mm.structures.VideoFeatures`, ``n`` rows each.
        state (dict[str, Tensor]): What the head prepared, by name; empty
            unless the head wants it kept.
        thumbnails (list[bytes]): One JPEG each.
    """

    spans: Tensor
    vectors: Tensor
    times: Tensor
    features: dict[str, Tensor]
    state: dict[str, Tensor]
    thumbnails: list[bytes]

    def __len__(self) -> int:
        return len(self.spans)

    @classmethod
    def join(cls, pieces: Sequence[Moments]) -> Moments:
        """Put rows one after the other; one piece at least."""

        def joined(parts: list) -> Any:
            first = parts[0]
            if isinstance(first, Tensor):
                return torch.cat(parts)
            if isinstance(first, dict):
                return {x: torch.cat([own[x] for own in parts]) for x in first}
            return [image for images in parts for image in images]

        names = [x.name for x in fields(cls)]
        return cls(*(joined([getattr(x, n) for x in pieces]) for n in names))

    def part(self, start: int, end: int) -> Moments:
        """Take some rows."""
        rows = slice(start, end)
        columns: list[Any] = [
            {x: tensor[rows] for x, tensor in own.items()}
            if isinstance(own, dict)
            else own[rows]
            for own in vars(self).values()
        ]
        return Moments(*columns)


@dataclass
class StoredMoment:
    """One row as a store keeps it: the columns of :data:`MOMENT_PARTS`."""

    start: float
    end: float
    vector: bytes
    times: bytes
    features: bytes
    state: bytes
    thumbnail: bytes = b''

    def to_parts(self) -> dict[str, tuple]:
        """Make the columns of :data:`MOMENT_PARTS`, and their checksums."""
        parts = {}
        for part in MOMENT_PARTS:
            own = [getattr(self, name) for name in PARTS[part]]
            parts[part] = *own, checksum(*own)
        return parts


#: Kinds of numbers, which numpy and torch name alike.
_KINDS = ('bool', 'float16', 'float32', 'int64')


@dataclass(frozen=True)
class Layout:
    """How the tensors of a row become bytes.

    ``columns`` has ``[kind, shape]`` by name, in the order of the bytes.

    Example:
        >>> layout = Layout.of({'frames': torch.zeros(1, 8, 32)}, 'float16')
        >>> layout.columns, layout.dtype.itemsize
        ({'frames': ['float16', [8, 32]]}, 512)
    """

    columns: dict[str, list] = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], precision: str) -> Layout:
        """Describe tensors of any number of rows."""
        columns = {}
        for name, tensor in tensors.items():
            kind = str(tensor.dtype).removeprefix('torch.')
            kind = precision if tensor.is_floating_point() else kind
            columns[name] = [kind, list(tensor.shape[1:])]
        return cls(columns)

    @classmethod
    def from_json(cls, content: Any, where: str) -> Layout:
        """Check a layout that was read."""
        try:
            layout = cls(content)
            layout.dtype  # noqa: B018  tells whether there is one
            if all(kind in _KINDS for kind, _ in content.values()):
                return layout
        except (AttributeError, TypeError, ValueError):
            pass
        raise DamagedIndexError(
            f'{where}: expected names, kinds and shapes of tensors, but found '
            f'{str(content)[:80]}. Make the index again.'
        )

    @cached_property
    def dtype(self) -> np.dtype:
        """numpy.dtype: Of a row."""
        return np.dtype(
            [(x, kind, tuple(own)) for x, (kind, own) in self.columns.items()]
        )

    def pack(self, tensors: Mapping[str, Tensor]) -> list[bytes]:
        """Turn rows into bytes."""
        if not self.columns:
            return []
        rows = np.empty(len(next(iter(tensors.values()))), self.dtype)
        for name, (kind, shape) in self.columns.items():
            tensor = tensors[name].detach().cpu()
            if list(tensor.shape[1:]) != shape:
                raise ValueError(
                    f"'{name}' of a moment must have shape {shape}, but has "
                    f'{list(tensor.shape[1:])}.'
                )
            kept = tensor.to(getattr(torch, kind))
            if kind == 'float16' and bool(kept.isinf().any()):
                raise ValueError(
                    f"'{name}' reaches {tensor.abs().max().item():.3g}, but "
                    'float16 holds 65504 at most. Index with '
                    "precision='float32'."
                )
            rows[name] = kept.numpy()
        return [row.tobytes() for row in rows]

    def unpack(self, rows: Sequence[bytes]) -> dict[str, Tensor]:
        """Turn bytes into tensors, float32 if floating."""
        dtype = self.dtype
        if any(len(row) != dtype.itemsize for row in rows):
            raise DamagedIndexError(
                f'A row of the index has not the {dtype.itemsize} bytes it '
                'should have. Index its video again.'
            )
        if not self.columns:
            return {}
        joined = np.frombuffer(bytearray().join(rows), dtype)
        tensors = {x: torch.from_numpy(joined[x].copy()) for x in self.columns}
        return {
            name: tensor.float() if tensor.dtype == torch.float16 else tensor
            for name, tensor in tensors.items()
        }


@dataclass(frozen=True)
class MomentLayout:
    """How the rows of an index become columns of bytes."""

    vector: Layout
    times: Layout
    features: Layout
    state: Layout

    @classmethod
    def of(cls, moments: Moments, precision: str) -> MomentLayout:
        """Describe rows like these, kept in one of :data:`PRECISIONS`."""
        if precision not in PRECISIONS:
            raise ValueError(
                f'precision must be one of {", ".join(PRECISIONS)}, but is '
                f'{precision!r}.'
            )
        return cls(
            Layout.of({'vector': moments.vectors}, precision),
            Layout.of({'times': moments.times}, 'float32'),
            Layout.of(moments.features, precision),
            Layout.of(moments.state, precision),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` takes."""
        return {name: own.columns for name, own in vars(self).items()}

    @classmethod
    def from_json(cls, content: Any, where: str) -> MomentLayout:
        """Read a layout."""
        names = set(cls.__dataclass_fields__)
        content = content if isinstance(content, dict) else {}
        if set(content) != names:
            content = dict.fromkeys(names)
        return cls(
            **{n: Layout.from_json(own, where) for n, own in content.items()}
        )

    def pack(self, moments: Moments) -> list[StoredMoment]:
        """Turn rows into columns of bytes."""
        if not len(moments):
            return []
        columns = zip(
            moments.spans.tolist(),
            self.vector.pack({'vector': moments.vectors}),
            self.times.pack({'times': moments.times}),
            self.features.pack(moments.features),
            self.state.pack(moments.state) or [b''] * len(moments),
            moments.thumbnails,
            strict=True,
        )
        return [StoredMoment(*span, *rest) for span, *rest in columns]


def checksum(*parts: bytes | str | int | float) -> int:
    """CRC-32 of values, their kinds and their lengths, in [0, 2**32)."""
    crc = 0
    for part in parts:
        kind = type(part).__name__
        if isinstance(part, str):
            part = part.encode('utf-8', 'surrogateescape')
        elif isinstance(part, int):
            part = part.to_bytes(16, 'little', signed=True)
        elif isinstance(part, float):
            part = struct.pack('<d', part)
        crc = zlib.crc32(f'{kind} {len(part)}'.encode(), crc)
        crc = zlib.crc32(part, crc)
    return crc
