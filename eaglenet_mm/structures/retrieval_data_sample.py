"""Metadata of a dataset item."""

from mmengine.structures import BaseDataElement


class RetrievalDataSample(BaseDataElement):
    """Metadata of a video and its captions.

    ``metainfo`` is set by
    :class:`~eaglenet_mm.datasets.transforms.PackRetrievalInputs`:

    - ``video_id`` (str): Id of the video, unique in its annotation file.
    - ``video`` (str): Path of the file.
    - ``video_index`` (int): Position of the video in the annotation file,
      the canonical order in evaluation.
    - ``captions`` (list[str]): Sentences in the order of ``token_ids``.
    - ``caption_indices`` (list[int]): Positions of these captions among all
      captions of the annotation file, from 0.
    - ``positives`` (list[list[str]], optional): For each caption, the
      ``video_id`` of all relevant videos. Without it, only this video is.
    - ``moments`` (list[list[list[float]]], optional): For each caption, its
      moments ``[start, end]`` in seconds of the file; several are
      alternatives.
    - ``start``, ``end`` (float, optional): Segment of the file, in seconds.
    - ``part`` (int, optional): Index of its dataset in a concatenated one;
      set by the evaluation loop.
    - ``frame_indices`` (list[int]): Indices of the frames read.
    - ``frame_times`` (list[float], optional): Their display times in seconds;
      not if they come from a cache.
    - ``windows`` (list, optional): If the video was read in windows, the first
      second, the end and the places of the frames of each.
    - ``num_frames_found`` (int): Number of frames read, without padding.

    Example:
        >>> sample = RetrievalDataSample(metainfo=dict(video_id='video7020'))
        >>> sample.video_id
        'video7020'
    """
