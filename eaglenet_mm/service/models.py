"""How the service is set up, what is asked of it, and what it answers."""

from __future__ import annotations

from typing import Annotated

from fastapi import UploadFile
from pydantic import BaseModel, Field, Json, model_validator

MAX_QUERY = 20_000
MAX_TEXTS = 32
MAX_HITS = 100


class Settings(BaseModel, extra='forbid', hide_input_in_errors=True):
    """How an index is served; ``ValueError`` if a value is out of range.

    Example:
        >>> Settings(token='0123456789abcdef').host
        '127.0.0.1'
    """

    #: What the server listens on, and further names under which it is
    #: reached, also ``*.example.org``.
    host: str = '127.0.0.1'
    allowed_host: list[str] = []
    #: Path below which a proxy shows it.
    root_path: str = ''
    #: Bearer token that ``/v1`` asks for, if any.
    token: str = Field(default='', pattern='^([!-~]{16,})?$', repr=False)
    #: Moments that the head scores; 0 for all.
    shortlist: int = Field(default=100, ge=0)
    #: Share of good queries that may be told that nothing was found.
    reject: float | None = Field(default=None, gt=0, lt=1)
    max_upload: int = Field(default=200, ge=1)  # megabytes of a clip
    time_limit: float = Field(default=120, gt=0)  # until an answer begins
    #: Queries that the page offers.
    example: list[str] = [
        'a dog runs into the sea',
        'people dance',
        'somebody cuts vegetables',
        'a car drives at night',
    ]


Text = Annotated[str, Field(max_length=MAX_QUERY)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
Word = Annotated[str, Field(max_length=4096)]


class Filter(BaseModel, extra='forbid', strict=True):
    """Which files are searched; what is empty allows all."""

    path: Word = Field('', description='Folder, file, or a pattern with *.')
    after: Word = Field('', description='Changed then or later: 2026-11-27.')
    before: Word = Field('', description='Changed earlier.')
    min_duration: Word = Field('', description='Of the file: 90, 1.5m.')
    max_duration: Word = Field('', description='Likewise.')
    tags: Annotated[list[Word], Field(max_length=32)] = []


class Page(BaseModel, extra='forbid'):
    """Which of the hits are wanted."""

    k: int = Field(12, ge=1, le=MAX_HITS)
    offset: int = Field(0, ge=0, le=100_000)
    per_video: int = Field(
        0, ge=0, le=MAX_HITS, description='Hits of one video; 0: all.'
    )


class ClipRequest(Page):
    """A video file to search by, as a form."""

    clip: UploadFile
    filter: Json[Filter] | None = None


class SearchRequest(Page, strict=True):
    """One sentence or several, and what is wanted of their hits."""

    text: Text | None = Field(None, examples=['a dog runs into the sea'])
    texts: Texts | None = None
    filter: Filter | None = None
    shortlist: int | None = Field(None, ge=1, le=10_000)
    reject: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode='after')
    def _check(self) -> SearchRequest:
        if (self.text is None) == (self.texts is None):
            raise ValueError("expected either a 'text' or 'texts'")
        return self


class Hit(BaseModel):
    """A moment of a video; its addresses are relative to the service."""

    moment_id: str
    path: str
    name: str
    start: float | None
    end: float | None
    duration: float | None = Field(description='Of the file, as the rest.')
    size: int
    changed: str
    tags: list[str]
    kind: str
    problem: str = Field(description='Why it cannot be shown, or empty.')
    thumbnail: str
    video: str
    best_time: float | None = Field(None, description='Nearest to the query.')
    score: float | None = None
    similarity: float | None = None
    others: list[Hit] = Field([], description='Further ones of the video.')


class Answer(BaseModel):
    """Hits, the best first, and how they came about."""

    hits: list[Hit]
    has_more: bool
    unknown_words: list[str]
    unseen_words: list[str]
    p_value: float | None
    nothing_found: bool
    scored: int
    total: int
    cut_at: int | None = Field(description='Characters that were read.')
    seconds: float


class Answers(BaseModel):
    """One answer for each of several texts."""

    answers: list[Answer]


class About(BaseModel):
    """The index and its model."""

    index: str
    files: int
    unreadable: int
    moments: int
    segment: float
    head: str
    untrained: list[str]
    root: str
    folders: list[str]
    tags: list[str]
    samples: list[str] = Field(description='Addresses of thumbnails.')
    examples: list[str]
    max_upload: int


class Problem(BaseModel):
    """What was wrong, in a sentence."""

    error: str
