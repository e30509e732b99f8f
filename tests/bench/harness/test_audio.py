"""The clips that are measured on: the right format, all different, made anew where there is no music."""

import numpy as np
import soundfile

from shardwave.bench.harness.audio import RATE, make_clips, repeat_clips


def test_synthetic_clips_are_16_bit_mono_and_different(tmp_path):
    paths, source = make_clips(tmp_path, 3, seconds=1.0, music=tmp_path / "none")
    about = soundfile.info(paths[0])
    assert (about.samplerate, about.channels, about.subtype, about.frames) == (RATE, 1, "PCM_16", RATE)
    assert source.startswith("synthetic")
    clips = [soundfile.read(path)[0] for path in paths]
    assert not np.array_equal(clips[0], clips[1]) and all(clip.std() > 0.01 for clip in clips)
    assert len({path.parent.name for path in paths}) == 2


def test_clips_are_windows_of_the_music_where_there_is_some(tmp_path):
    music = tmp_path / "music"
    music.mkdir()
    ramp = np.linspace(-0.9, 0.9, 4 * RATE, dtype=np.float32)
    soundfile.write(music / "ramp.flac", np.stack([ramp, ramp], axis=1), RATE)
    paths, source = make_clips(tmp_path / "clips", 4, seconds=1.0, music=music)
    assert source == "windows of ramp"
    starts = [soundfile.read(path)[0][0] for path in paths]
    assert np.allclose(starts, np.linspace(-0.9, 0.9, 4 * RATE)[::RATE], atol=1e-3)


def test_repeated_clips_share_their_bytes(tmp_path):
    paths, _ = make_clips(tmp_path / "clips", 2, seconds=0.2, music=tmp_path / "none")
    repeated = repeat_clips(paths, tmp_path / "many", 5)
    assert len(set(repeated)) == 5 and all(path.exists() for path in repeated)
    assert repeated[0].stat().st_ino == repeated[2].stat().st_ino == paths[0].stat().st_ino
