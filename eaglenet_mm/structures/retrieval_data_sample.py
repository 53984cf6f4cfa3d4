"""What is known of one item beside its tensors."""

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
    - ``frame_indices`` (list[int]): Numbers of the frames delivered.
    - ``num_frames_found`` (int): Frames delivered before any padding.
    """
