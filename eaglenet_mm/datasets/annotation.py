"""The annotation schema: validated reading and atomic writing.

A file is JSON in the layout of MMEngine's ``BaseDataset``::

    {"metainfo": {"dataset": "msrvtt", "split": "test", "protocol": "1k-A",
                  "num_videos": 1000, "num_captions": 1000},
     "data_list": [{"video_id": "video7020", "video": "video7020.mp4",
                    "captions": ["a woman creating a fondant baby"],
                    "start": 0.0, "end": 31.0}]}

``start`` and ``end`` (seconds) are optional. ``video`` is a path relative to
the video folder, with forward slashes on every system.

``moments``, optional and parallel to ``captions``, says when a caption is
shown: for each caption a list of one or more ``[start, end]``, in seconds of
the file, as ``start`` and ``end`` of the record are. Several are alternatives,
such as the answers of several annotators: ``"moments": [[[5, 10], [0, 10]]]``.

``captions`` may be empty: the video is then a distractor. ``positives`` is an
optional list parallel to ``captions``; it gives for each caption the
``video_id`` of the other videos it matches. A caption always matches its own
video. With ``"shared_captions": true`` in the header, a sentence that occurs
in several records matches all of their videos. Texts without a video of their
own go into the header, with the videos they match, if any:
``"queries": [{"caption": "a cat", "positives": []}]``.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eaglenet_mm.utils.durable_file import write_text_durably

#: Required header keys; each value is a non-empty string.
HEADER_KEYS = ('dataset', 'split', 'protocol')
#: Required record keys.
REQUIRED_KEYS = ('video_id', 'video', 'captions')
#: Optional record keys.
OPTIONAL_KEYS = ('start', 'end', 'positives', 'moments')

_MEND = 'Make the file again with its converter in tools/dataset_converters.'


def read_annotation(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read and validate an annotation file.

    Args:
        path (str or PathLike): The JSON file, in UTF-8.

    Returns:
        tuple[dict, list[dict]]: The header, with ``num_videos`` and
        ``num_captions`` filled in where missing, and the records in file
        order.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not UTF-8 JSON or a value is invalid.
        KeyError: If a required key is missing or a key is unknown.
        TypeError: If a value has the wrong type.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"Annotation file '{path}' does not exist. Check 'ann_file' and "
            "'data_root' in the config, or make the file with a converter: "
            'eaglenet-mm convert, or tools/dataset_converters.'
        )
    try:
        # utf-8-sig also accepts the byte order mark of Windows editors
        content = json.loads(path.read_text(encoding='utf-8-sig'))
    except (json.JSONDecodeError, UnicodeDecodeError) as err:
        raise ValueError(
            f'{path}: expected JSON in UTF-8, but reading stopped with: '
            f'{err}. {_MEND}'
        ) from err
    is_object = isinstance(content, dict)
    if not is_object or not {'metainfo', 'data_list'} <= set(content):
        found = sorted(content)[:10] if is_object else type(content)
        raise KeyError(
            f"{path}: expected an object with 'metainfo' and 'data_list', "
            f'but got {found}. {_MEND}'
        )
    return check_annotation(
        content['metainfo'], content['data_list'], source=str(path)
    )


def write_annotation(
    path: str | os.PathLike[str],
    metainfo: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
) -> None:
    """Validate an annotation and write it atomically.

    Args:
        path (str or PathLike): Output file; missing folders are created.
        metainfo (Mapping): Header. ``num_videos`` and ``num_captions`` are
            filled in; if given, they must match ``records``.
        records (Sequence[Mapping]): Records in the schema of this module.

    Raises:
        ValueError, KeyError, TypeError: As in :func:`read_annotation`.
    """
    path = Path(path)
    header, data_list = check_annotation(metainfo, records, source=str(path))
    text = json.dumps(
        dict(metainfo=header, data_list=data_list),
        ensure_ascii=False,
        allow_nan=False,
        indent=1,
    )
    write_text_durably(path, text + '\n')


def check_annotation(
    metainfo: Any, records: Any, source: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Validate a header and its records against the schema.

    Args:
        metainfo (Mapping): The header.
        records (Sequence[Mapping]): The records.
        source (str): Name for error messages, usually the path.

    Returns:
        tuple[dict, list[dict]]: Copies of both, with the counts filled in.

    Raises:
        ValueError: If a value is empty, a time range is not increasing, an
            id is duplicated, there are no records, or the counts differ.
        KeyError: If a required key is missing or a key is unknown.
        TypeError: If a value has the wrong type.
    """
    if not isinstance(metainfo, Mapping):
        raise TypeError(
            f"{source}: 'metainfo' must be an object, but got "
            f'{type(metainfo).__name__}. {_MEND}'
        )
    if not isinstance(records, Sequence) or isinstance(records, str):
        raise TypeError(
            f"{source}: 'data_list' must be a list, but got "
            f'{type(records).__name__}. {_MEND}'
        )
    header = dict(metainfo)
    for key in HEADER_KEYS:
        if not isinstance(header.get(key), str) or not header[key]:
            raise KeyError(
                f"{source}: 'metainfo' needs '{key}', a non-empty string, "
                f'but got {header.get(key)!r}. {_MEND}'
            )
    if not records:
        raise ValueError(
            f"{source}: 'data_list' is empty, so there is nothing to load. "
            f'{_MEND}'
        )
    first_place: dict[str, int] = {}
    for place, record in enumerate(records):
        _check_record(record, place, source)
        other = first_place.setdefault(record['video_id'], place)
        if other != place:
            raise ValueError(
                f"{source}: video_id '{record['video_id']}' is used by record "
                f'{other} and record {place}, but must be unique. Put all '
                'captions of a video into one record.'
            )
    counts = dict(
        num_videos=len(records),
        num_captions=sum(len(record['captions']) for record in records),
    )
    for key, count in counts.items():
        if header.setdefault(key, count) != count:
            raise ValueError(
                f"{source}: the header says '{key}' is {header[key]!r}, but "
                f'the records hold {count}. The file may be cut short. {_MEND}'
            )
    _check_answers(header, records, set(first_place), source)
    return header, [dict(record) for record in records]


def right_videos(
    header: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> list[list[list[str]]] | None:
    """List the matching videos of each caption of each record, own first.

    None if every caption matches its own video alone.
    """
    shared: dict[str, list[str]] = {}
    if header.get('shared_captions'):
        for record in records:
            for caption in record['captions']:
                shared.setdefault(caption, []).append(record['video_id'])
    stated = any('positives' in record for record in records)
    if not stated and not shared and 'queries' not in header:
        return None

    def fits(record: Mapping[str, Any]) -> list[list[str]]:
        captions = record['captions']
        stated = record.get('positives') or [()] * len(captions)
        own = [record['video_id']]
        return [
            list(dict.fromkeys([*own, *shared.get(caption, ()), *others]))
            for caption, others in zip(captions, stated, strict=True)
        ]

    return [fits(record) for record in records]


def _check_answers(
    header: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    video_ids: set[str],
    source: str,
) -> None:
    """Check the statements on which captions match which videos."""
    shared = header.get('shared_captions', False)
    if not isinstance(shared, bool):
        raise TypeError(
            f"{source}: 'shared_captions' in 'metainfo' must be true or "
            f'false, but got {shared!r}.'
        )
    # videos dropped from the set because they cannot be read
    known = video_ids | set(header.get('missing_videos', ()))
    for place, record in enumerate(records):
        if 'positives' not in record:
            continue
        where = f'{source}: record {place} ({record["video_id"]!r})'
        positives, captions = record['positives'], record['captions']
        if not isinstance(positives, list) or len(positives) != len(captions):
            raise ValueError(
                f"{where}: 'positives' must be a list of lists of video ids, "
                f'one for each of the {len(captions)} captions, but got '
                f'{positives!r:.80}.'
            )
        for number, names in enumerate(positives):
            _check_names(names, known, f"{where}: 'positives'[{number}]")
    queries = header.get('queries', [])
    if not isinstance(queries, list):
        raise TypeError(
            f"{source}: 'queries' in 'metainfo' must be a list of objects, "
            f'but got {type(queries).__name__}.'
        )
    for number, query in enumerate(queries):
        where = f"{source}: 'queries'[{number}] in 'metainfo'"
        if not isinstance(query, Mapping) or not (
            {'caption'} <= set(query) <= {'caption', 'positives'}
        ):
            raise KeyError(
                f"{where} must be an object with 'caption' and optionally "
                f"'positives', but got {query!r:.80}."
            )
        _check_captions([query['caption']], where)
        _check_names(query.get('positives', []), known, where)


def _check_names(names: Any, known: set[str], where: str) -> None:
    """Check a list of video ids that a caption matches."""
    if not isinstance(names, list) or not all(
        isinstance(name, str) for name in names
    ):
        raise TypeError(
            f'{where} must be a list of video ids, but got {names!r:.80}.'
        )
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f'{where} names {unknown[:3]}, but no record has this video_id. '
            "Correct it, or list videos that are gone in 'missing_videos' of "
            "'metainfo'."
        )


def _check_record(record: Any, place: int, source: str) -> None:
    if not isinstance(record, Mapping):
        raise TypeError(
            f'{source}: record {place} must be an object, but got '
            f'{type(record).__name__}. {_MEND}'
        )
    where = f'{source}: record {place} ({record.get("video_id")!r})'
    for key in REQUIRED_KEYS:
        if key not in record:
            raise KeyError(f"{where} has no '{key}'. {_MEND}")
    unknown = sorted(
        str(key) for key in set(record) - {*REQUIRED_KEYS, *OPTIONAL_KEYS}
    )
    if unknown:
        raise KeyError(
            f'{where} has unknown keys {unknown[:5]}. Allowed are '
            f'{[*REQUIRED_KEYS, *OPTIONAL_KEYS]}: remove or rename the others.'
        )
    for key in ('video_id', 'video'):
        if not isinstance(record[key], str) or not record[key]:
            raise TypeError(
                f"{where}: '{key}' must be a non-empty string, but got "
                f'{record[key]!r}. {_MEND}'
            )
        if '\0' in record[key]:
            raise ValueError(
                f"{where}: '{key}' contains a NUL character "
                f'({record[key]!r}), which no file name can. {_MEND}'
            )
    _check_captions(record['captions'], where)
    _check_times(record, where)
    if 'moments' in record:
        _check_moments(record, where)


def _check_captions(captions: Any, where: str) -> None:
    """Check that captions are a list of non-empty, encodable strings."""
    if not isinstance(captions, list):
        raise TypeError(
            f"{where}: 'captions' must be a list of strings, but got "
            f'{type(captions).__name__}. {_MEND}'
        )
    for number, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise TypeError(
                f"{where}: 'captions'[{number}] must be a string, but got "
                f'{caption!r}. {_MEND}'
            )
        if not caption.strip():
            raise ValueError(
                f"{where}: 'captions'[{number}] is empty ({caption!r}). "
                'Remove it from the list.'
            )
        if '\0' in caption:
            raise ValueError(
                f"{where}: 'captions'[{number}] contains a NUL character, "
                'probably from a damaged file. Write the caption again.'
            )
        try:
            caption.encode('utf-8')
        except UnicodeEncodeError as err:
            raise ValueError(
                f"{where}: 'captions'[{number}] is not valid Unicode "
                f'({err.reason}). Write it again in UTF-8.'
            ) from err


def _check_times(record: Mapping[str, Any], where: str) -> None:
    """Check that the seconds are numbers with 0 <= start < end."""
    for key in ('start', 'end'):
        value = record.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(
                f"{where}: '{key}' must be a number of seconds, but got "
                f'{value!r}. {_MEND}'
            )
        if not math.isfinite(value) or value < 0:
            raise ValueError(
                f"{where}: '{key}' must be finite and at least 0, but got "
                f'{value!r}. {_MEND}'
            )
    start, end = record.get('start'), record.get('end')
    if end is not None and (start or 0) >= end:
        raise ValueError(
            f"{where}: 'start' must come before 'end', but got {start} and "
            f'{end} seconds. Swap or correct them.'
        )


def _check_moments(record: Mapping[str, Any], where: str) -> None:
    """Check that every caption has moments, which lie within the clip."""
    moments, captions = record['moments'], record['captions']
    if not isinstance(moments, list) or len(moments) != len(captions):
        count = f' with {len(moments)}' if isinstance(moments, list) else ''
        raise ValueError(
            f"{where}: 'moments' must be a list with an entry for each of the "
            f'{len(captions)} captions, but got {type(moments).__name__}'
            f'{count}. {_MEND}'
        )
    first = record.get('start') or 0
    last = record.get('end')
    for number, spans in enumerate(moments):
        name = f"{where}: 'moments'[{number}]"
        if not isinstance(spans, list) or not spans:
            raise ValueError(
                f'{name} must be a list of one or more [start, end] in '
                f"seconds, but got {spans!r:.80}. Leave out 'moments' of a "
                'record whose captions have none.'
            )
        for span in spans:
            if (
                not isinstance(span, list)
                or len(span) != 2
                or any(isinstance(x, bool) for x in span)
                or not all(isinstance(x, int | float) for x in span)
            ):
                raise TypeError(
                    f'{name} must hold pairs [start, end] of seconds, but got '
                    f'{span!r:.80}. {_MEND}'
                )
            start, end = span
            if not (math.isfinite(start) and math.isfinite(end)):
                raise ValueError(
                    f'{name} must be finite, but got {span}. {_MEND}'
                )
            if start >= end:
                raise ValueError(
                    f'{name} must start before it ends, but got {span}. '
                    'Swap or correct the seconds.'
                )
            if start < first or (last is not None and end > last):
                clip = 'the end of the file' if last is None else f'{last}'
                raise ValueError(
                    f'{name} must lie within the clip, from {first} to '
                    f'{clip}, but got {span}. Count the seconds from the '
                    "start of the file, as 'start' and 'end' are."
                )
