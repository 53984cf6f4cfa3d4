"""Choose the frames of a video."""

from fractions import Fraction
from typing import Any

from mmcv.transforms import BaseTransform

from eaglenet_mm.datasets.video_readers import Timeline, VideoSamplingError
from eaglenet_mm.registry import TRANSFORMS

from .frame_sampling import (
    SELECTIONS,
    clean_frames,
    release_frames,
    release_seeks,
    select_frames,
)

#: How the frames to read are found.
MODES = ('release', 'clean')


@TRANSFORMS.register_module()
class SampleFrames(BaseTransform):
    """Choose frames at a rate, then at most ``num_frames`` of them.

    Takes ``video_reader``, ``start``, ``end`` (seconds or None); adds
    ``frame_indices`` (list[int]) and ``frame_sampler`` (this transform, for
    :class:`DecodeFrames`, which samples again when a file turns out shorter
    than its header).

    ``mode='release'`` chooses what the authors' release does: frame rate cut
    to an integer, last second included, reading stopped at the first frame
    that cannot be read. **Differs from the release** where that crashes or
    goes on with an all-zero video (frame rate below 1, ``fps`` above the
    frame rate, no frame in the range): these raise. ``mode='clean'`` takes
    the frame on display at each point in time, by the clock of the file, see
    :func:`clean_frames`; right for variable frame rates too.

    Args:
        num_frames (int): Most frames an item may have.
        fps (float): Frames a second; in release mode an integer, where 0
            means every frame. Defaults to 1.
        mode (str): ``'release'`` or ``'clean'``. Defaults to 'release'.
        selection (str): ``'uniform'``, ``'head'`` or ``'tail'``; see
            :func:`select_frames`. Defaults to 'uniform'.

    Raises:
        ValueError: If an argument is not allowed.
    """

    def __init__(
        self,
        num_frames: int,
        fps: float = 1,
        *,
        mode: str = 'release',
        selection: str = 'uniform',
    ) -> None:
        if num_frames < 1:
            raise ValueError(
                f'num_frames must be at least 1, but got {num_frames}. Set '
                'it to the num_frames of the head.'
            )
        if mode not in MODES or selection not in SELECTIONS:
            raise ValueError(
                f'mode must be one of {list(MODES)} and selection one of '
                f'{list(SELECTIONS)}, but got {mode!r} and {selection!r}. '
                'Change the SampleFrames entry of the pipeline.'
            )
        if mode == 'release' and (fps < 0 or int(fps) != fps):
            raise ValueError(
                "fps must be an integer of at least 0 in mode='release', but "
                f"got {fps}. Round it, or use mode='clean'."
            )
        if mode == 'clean' and fps <= 0:
            raise ValueError(
                f"fps must be positive in mode='clean', but got {fps}. Set "
                'it to the frames wanted of each second.'
            )
        self.num_frames = num_frames
        self.fps = fps
        self.mode = mode
        self.selection = selection

    def sample(
        self,
        video_fps: float | Fraction,
        frame_count: int,
        *,
        decodable: int,
        start: float | None = None,
        end: float | None = None,
        timeline: Timeline | None = None,
    ) -> list[int]:
        """Choose frames of a video with these properties.

        Args:
            video_fps (float | Fraction): Frame rate.
            frame_count (int): Frames that the header promises.
            decodable (int): Frames that can be read.
            start (float, optional): First second.
            end (float, optional): End in seconds.
            timeline (Timeline, optional): When the frames are shown, for
                ``mode='clean'``. Defaults to the constant ``video_fps``.

        Returns:
            list[int]: At least 1, at most ``num_frames`` frame numbers.

        Raises:
            ValueError: If the frame rate does not allow it, or the range
                holds no frame.
        """
        if self.mode == 'release':
            seeks = release_seeks(
                video_fps, frame_count, start=start, end=end, fps=int(self.fps)
            )
            frames = release_frames(
                seeks, frame_count=frame_count, decodable=decodable
            )
        else:
            if timeline is None:
                timeline = Timeline.at_rate(video_fps, decodable)
            frames = clean_frames(timeline, start=start, end=end, fps=self.fps)
        if not frames:
            length = (
                f'at {float(video_fps):g} a second'
                if timeline is None
                else f'shown from {timeline.begin:g} to '
                f'{timeline.duration:g} seconds'
            )
            mend = (
                'Encode it again, or leave it out.'
                if start is None and end is None
                else "Correct 'start' and 'end' in the annotation, or leave "
                'the video out of it.'
            )
            raise ValueError(
                f'No frame lies between {start or 0} and {end} seconds of a '
                f'video of {decodable} frames {length}. {mend}'
            )
        return select_frames(frames, self.num_frames, selection=self.selection)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Choose the frames of an item.

        Args:
            results (dict): With ``video_reader`` and, if the item is a part
                of the video, ``start`` and ``end``.

        Returns:
            dict: With ``frame_indices`` and ``frame_sampler``.

        Raises:
            VideoSamplingError: As :meth:`sample`, with the id and the file.
        """
        reader = results['video_reader']
        try:
            results['frame_indices'] = self.sample(
                reader.fps,
                reader.num_frames_reported,
                decodable=reader.num_frames,
                start=results.get('start'),
                end=results.get('end'),
                timeline=reader.timeline if self.mode == 'clean' else None,
            )
        except ValueError as err:
            raise VideoSamplingError(
                f"Video '{results.get('video_id')}' ({reader.path}): {err}"
            ) from err
        results['frame_sampler'] = self
        return results

    def __repr__(self) -> str:
        # names frame caches: before frames went by the clock, mode='clean'
        # chose others
        clock = ", by='clock'" if self.mode == 'clean' else ''
        return (
            f'{type(self).__name__}(num_frames={self.num_frames}, '
            f'fps={self.fps}, mode={self.mode!r}, '
            f'selection={self.selection!r}{clock})'
        )
