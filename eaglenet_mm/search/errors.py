"""What can be wrong with an index of videos."""


class VideoIndexError(ValueError):
    """An index cannot be used as asked; the base of the others."""


class DamagedIndexError(VideoIndexError):
    """A file of an index is missing or is not what was written."""


class OtherModelError(VideoIndexError):
    """An index was made by another model than the one at hand."""


class IndexInUseError(VideoIndexError):
    """Another process is writing the index."""


class IndexWriteError(VideoIndexError, OSError):
    """An index could not be written, for want of space or of permission."""
