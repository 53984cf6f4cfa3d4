"""Numbers of frames, which sampling, preprocessor and head share."""

from mmengine.config import Config

from eaglenet_mm.config.knobs import knob_places


def check_frame_counts(cfg: Config) -> None:
    """Refuse a config that samples other numbers of frames than it scores.

    Fewer would be padded, and the head would see padding in every video.
    Short videos may still give fewer frames than the number sampled.

    Raises:
        ValueError: If the numbers differ; names them and the knob.
    """
    counts = knob_places(cfg, 'num_frames')
    model = cfg.get('model') or {}
    encoder = model.get('video_encoder') or {}
    parts = ['data_preprocessor']
    if encoder.get('layout') != 'clip':  # which makes fewer steps of frames
        parts.append('head')
    given = {
        f'model.{part}.num_frames': (model.get(part) or {}).get('num_frames')
        for part in parts
    }
    given = {place: count for place, count in given.items() if count}
    if not counts or not given:
        return
    counts |= given
    if len(set(counts.values())) == 1:
        return
    told = [f'{place}={count}' for place, count in counts.items()]
    raise ValueError(
        'Sampling, preprocessor and head must have the same number of frames, '
        f'but got {", ".join(told)}. Leave these out and set num_frames, '
        'in the config or with --cfg-options num_frames=N: it sets all of '
        'them.'
    )
