"""Real clips with odd properties, indexed and searched from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from eaglenet_mm.apis import RetrievalInferencer, VideoIndex
from eaglenet_mm.apis.index_updating import update_index

#: Files of which nothing can be read, and one whose header promises more.
BROKEN = {
    'Panasonic_AG_HMC_151.MTS',
    'breakdance.flv',
    'corrupted.mp4',
    'empty.mp4',
    'first_vid.mp4',
    'matrix_ping_pong.wmv',
    'mpeg4.mp4',
    'pentax_320x240.mov',
    'video7011_truncated.mp4',
}


@pytest.mark.nightly
def test_a_folder_of_real_clips(shared_dir: Path, tmp_path: Path) -> None:
    videos = shared_dir / 'data/videos'
    made, report = update_index(
        [str(videos)],
        tmp_path / 'index',
        model='eaglenet_story',
        untrained=True,
        num_workers=1,
        segment=10.0,
    )
    index = made.index
    assert index is not None
    assert {Path(path).name for path in report.unreadable} == BROKEN
    assert len(report.added) == len(index.files) == 41
    assert not report.gone
    assert index.store.verify() == {}
    index.close()
    index = VideoIndex.load(tmp_path / 'index')
    inferencer = RetrievalInferencer.of_index(tmp_path / 'index')
    hits = inferencer.search('a dog runs', len(index) + 1, shortlist=0)
    assert len(hits) == len(index)
    names = {Path(hit.path).name for hit in hits}
    # its first segment can be read, its others are not there
    assert names & BROKEN == {'breakdance.flv'}
    assert len(names) == 41 - len(BROKEN) + 1
    long = [hit for hit in hits if hit.path.endswith('10min.mkv')]
    assert len(long) == 60
    for hit in hits:
        # the last frame of a file may be shown a little after its end
        assert hit.start - 0.1 <= hit.best_time <= hit.end + 0.1
    clip = videos / 'vatex/Bfyp0C02sko_000248_000258.mp4'
    found = inferencer.search_video(clip, 1)
    assert found[0].path == str(clip)
