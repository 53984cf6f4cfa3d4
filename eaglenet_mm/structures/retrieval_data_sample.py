"""Metadata of an item."""

from mmengine.structures import BaseDataElement


class RetrievalDataSample(BaseDataElement):
    """One video with the captions that travel with it.

    Meta information (``metainfo``), set by
    :class:`~eaglenet_mm.datasets.transforms.PackRetrievalInputs`:

    - ``video_id`` (str): Id of the video, unique in its annotation file.
    - ``video`` (str): Path of the file.
    - ``video_index`` (int): Place of the video in the annotation file; the
      canonical order of an evaluation.
    - ``captions`` (list[str]): The sentences of ``token_ids``, in order.
    - ``caption_indices`` (list[int]): Places of these captions among all
      captions of the annotation file, counted from 0.
    - ``positives`` (list[list[str]], optional): For each of these captions the
      ``video_id`` of all videos that are right answers, this one among them
      unless it is none. Without it, this video alone is right.
    - ``start``, ``end`` (float, optional): Where the video begins and ends in
      its file, in seconds.
    - ``part`` (int, optional): Place of its data set among those of a joined
      one; set by the loop of an evaluation.
    - ``frame_indices`` (list[int]): Numbers of the frames delivered.
    - ``num_frames_found`` (int): Frames delivered before any padding.

    Example:
        >>> sample = RetrievalDataSample(metainfo=dict(video_id='video7020'))
        >>> sample.video_id
        'video7020'
    """
