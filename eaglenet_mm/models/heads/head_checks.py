"""What heads ask of the features they get."""

from __future__ import annotations

from typing import Any

from eaglenet_mm.structures import TextFeatures, VideoFeatures


def check_text_sizes(
    head: Any,
    text: TextFeatures,
    *,
    embed_dim: int | None = None,
    needs_tokens: bool = False,
) -> None:
    """Refuse texts that a head cannot take, and say what to change.

    Args:
        head (BasePairHead): Named in the message.
        text (TextFeatures): Of the texts.
        embed_dim (int, optional): Width that they must have.
        needs_tokens (bool): Whether texts need their tokens. Default: False.

    Raises:
        ValueError: If something does not fit.
    """
    _check_width(head, 'text', text.embeds.shape[-1], embed_dim)
    if needs_tokens and (text.tokens is None or text.token_mask is None):
        raise ValueError(
            f'{type(head).__name__} matches words, but the text encoder '
            'returns sentences alone. Set output_tokens=True of a '
            'CLIPTextEncoder or HuggingFaceTextEncoder, or choose a head that '
            'takes sentences.'
        )
    if needs_tokens and text.token_mask is not None:
        silent = (~text.token_mask.any(dim=1)).nonzero().flatten()
        if len(silent):
            raise ValueError(
                f'{type(head).__name__} needs a real word of each text, but '
                f'{len(silent)} have none, the first at position '
                f'{int(silent[0])}. Remove empty captions.'
            )


def check_video_sizes(
    head: Any,
    video: VideoFeatures,
    *,
    embed_dim: int | None = None,
    num_frames: int | None = None,
    max_frames: int | None = None,
    needs_real_frames: bool = False,
    num_seen: int | None = None,
    needs_patches: bool = False,
) -> None:
    """Refuse videos that a head cannot take, and say what to change.

    Args:
        head (BasePairHead): Named in the message.
        video (VideoFeatures): Of the videos.
        embed_dim (int, optional): Width that they must have.
        num_frames (int, optional): Frames that they must have.
        max_frames (int, optional): Frames that they may have at most.
        needs_real_frames (bool): Whether each needs a real frame.
            Default: False.
        num_seen (int, optional): First frames among which that one must be,
            ``num_tokens`` of the head. Default: None, any.
        needs_patches (bool): Whether they need their patches.
            Default: False.

    Raises:
        ValueError: If something does not fit.
    """
    name = type(head).__name__
    _check_width(head, 'video', video.frames.shape[-1], embed_dim)
    frames = video.frames.shape[1]
    if num_frames is not None and frames != num_frames:
        raise ValueError(
            f'{name} was built for num_frames={num_frames}, but videos have '
            f'{frames}. Set num_frames alike in the head, the preprocessor '
            'and the pipeline.'
        )
    if max_frames is not None and frames > max_frames:
        raise ValueError(
            f'{name} has positions for {max_frames} frames, but videos have '
            f'{frames}. Lower num_frames, or raise max_positions of its '
            'temporal part.'
        )
    if needs_real_frames and not bool(video.frame_mask.any(dim=1).all()):
        empty = (~video.frame_mask.any(dim=1)).nonzero().flatten()
        raise ValueError(
            f'{name} needs a real frame of each video, but {len(empty)} have '
            f'none, the first at position {int(empty[0])}. Remove them from '
            'the annotations.'
        )
    if needs_real_frames and num_seen is not None and num_seen < frames:
        unseen = ~video.frame_mask[:, :num_seen].any(dim=1)
        if bool(unseen.any()):
            raise ValueError(
                f'{name} sees the first num_tokens={num_seen} frames, but '
                f'{int(unseen.sum())} videos have padding alone there, the '
                f'first at position {int(unseen.nonzero()[0])}. Put real '
                'frames first, or raise num_tokens.'
            )
    if needs_patches and video.patches is None:
        raise ValueError(
            f'{name} selects among patches, but the video encoder returns '
            'frames alone. Set output_patches=True of a CLIPVideoEncoder, or '
            'choose a head that takes frames.'
        )


def _check_width(
    head: Any, side: str, width: int, embed_dim: int | None
) -> None:
    if embed_dim is not None and width != embed_dim:
        raise ValueError(
            f'{type(head).__name__} was built for embed_dim={embed_dim}, but '
            f'the {side} features have {width} channels. Set embed_dim alike '
            f'in the head and the {side} encoder.'
        )
