"""Exchange of patch tokens between neighbouring frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Every ``len / 7``-th token moves; fewer tokens leave no step to take.
NUM_FOLDS = 7
FROM_PREVIOUS_START = 1
FROM_NEXT_START = 4


def check_num_tokens(num_tokens: int) -> None:
    """Raise unless the token grid is large enough to be shifted.

    Args:
        num_tokens (int): Tokens of one frame, the class token included.

    Raises:
        ValueError: If there are fewer than 7.
    """
    if num_tokens < NUM_FOLDS:
        raise ValueError(
            f'The patch shift needs at least {NUM_FOLDS} tokens a frame '
            f'(class token and patches), but got {num_tokens}. Use larger '
            'images or smaller patches, or switch it off with '
            'shift_layers=().'
        )


class PatchShift(nn.Module):
    """Replace some patch tokens by those of the frames before and after.

    The patch shift of `TS2-Net <https://arxiv.org/abs/2207.07852>`_ as
    EagleNet's release applies it. With ``fold = L // 7``, tokens ``1,
    1 + fold, 1 + 2 * fold, ...`` come from the previous frame (the first
    frame keeps its own) and tokens ``4, 4 + fold, ...`` from the next one
    (the last frame keeps its own). Where both patterns meet, on grids of
    fewer than 28 tokens, the next frame wins, except on the last frame. The
    class token, position 0, never moves. There are no parameters.
    """

    def forward(self, tokens: Tensor, num_frames: int) -> Tensor:
        """Shift the tokens of every video.

        Args:
            tokens (Tensor): Tokens of the frames, the frames of a video
                side by side, shape ``(B * F, L, C)``.
            num_frames (int): Frames of one video, ``F``.

        Returns:
            Tensor: The shifted tokens, shape ``(B * F, L, C)``; the input is
            left as it is.

        Raises:
            ValueError: If ``L`` is below 7, or the first axis is no
                multiple of ``F``.
        """
        num_images, num_tokens, width = tokens.shape
        check_num_tokens(num_tokens)
        if num_frames < 1 or num_images % num_frames:
            raise ValueError(
                f'{num_images} frames cannot be split into videos of '
                f'num_frames={num_frames} frames.'
            )
        source = self._source(num_frames, num_tokens, tokens.device)
        videos = tokens.reshape(-1, num_frames * num_tokens, width)
        shifted = videos.index_select(1, source)  # (B, F * L, C)
        return shifted.view(num_images, num_tokens, width)  # (B * F, L, C)

    @staticmethod
    def _source(
        num_frames: int, num_tokens: int, device: torch.device
    ) -> Tensor:
        """Place every token comes from, shape ``(F * L,)``."""
        fold = num_tokens // NUM_FOLDS
        frames = torch.arange(num_frames, device=device).unsqueeze(1)  # (F, 1)
        tokens = torch.arange(num_tokens, device=device)  # (L,)
        source = frames * num_tokens + tokens  # (F, L)
        # conditions rather than slices, which an export could not follow to
        # other numbers of frames
        from_previous = (tokens % fold == FROM_PREVIOUS_START % fold) & (
            tokens >= FROM_PREVIOUS_START
        )
        from_next = (tokens % fold == FROM_NEXT_START % fold) & (
            tokens >= FROM_NEXT_START
        )
        takes_next = from_next & (frames < num_frames - 1)
        takes_previous = from_previous & (frames > 0) & ~takes_next
        step = takes_next.long() - takes_previous.long()
        return (source + step * num_tokens).flatten()
