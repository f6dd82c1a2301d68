"""Sound without calls."""

from __future__ import annotations

import array
import math
from pathlib import Path

import audiosocket
import pytest


def tone(rate: int, seconds: float) -> bytes:
    count = int(rate * seconds)
    return array.array("h", [int(12_000 * math.sin(2 * math.pi * 440 * at / rate)) for at in range(count)]).tobytes()


def samples(data: bytes) -> array.array[int]:
    return array.array("h", data)


@pytest.mark.parametrize(
    ("encode", "decode"),
    [
        (audiosocket.encode_ulaw, audiosocket.decode_ulaw),
        (audiosocket.encode_alaw, audiosocket.decode_alaw),
    ],
)
def test_g711_keeps_what_it_can_say(encode: object, decode: object) -> None:
    assert callable(encode) and callable(decode)
    codes = encode(tone(8_000, 0.1))
    assert len(codes) == 800
    assert encode(decode(codes)) == codes


def test_silence_in_mu_law_is_ff() -> None:
    assert audiosocket.encode_ulaw(bytes(8)) == b"\xff" * 4


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
def test_a_tone_survives_another_rate(rate: int) -> None:
    original = tone(8_000, 0.5)
    back = audiosocket.resample(audiosocket.resample(original, 8_000, rate), rate, 8_000)
    differences = [abs(a - b) for a, b in zip(samples(original)[800:-800], samples(back)[800:-800])]
    assert len(back) == len(original)
    assert max(differences) < 200


def test_a_stream_is_resampled_as_it_comes() -> None:
    original, resampler = tone(24_000, 0.5), audiosocket.Resampler(24_000, 8_000)
    pieces = [resampler.process(original[at : at + 962]) for at in range(0, len(original), 962)]
    whole = b"".join(pieces) + resampler.flush()
    assert abs(len(whole) - len(original) // 3) <= 200
    assert repr(resampler) == "<audiosocket.Resampler 24000 to 8000 Hz>"


def test_speech_is_told_from_silence() -> None:
    detector = audiosocket.VoiceDetector(8_000)
    events = detector.push(bytes(16_000))
    events += detector.push(tone(8_000, 1))
    assert detector.is_speaking
    events += detector.push(bytes(32_000))
    assert [what for what, _ in events] == ["started", "ended"]
    assert events[0][1] == pytest.approx(1, abs=0.2)
    assert not detector.is_speaking


def test_a_clip_knows_how_long_it_is() -> None:
    assert audiosocket.Clip(tone(24_000, 0.5), 24_000).duration == pytest.approx(0.5)


def test_rates_out_of_range_are_refused() -> None:
    for make in (lambda: audiosocket.Resampler(1, 8_000), lambda: audiosocket.Clip(bytes(2), 1_000_000)):
        with pytest.raises(ValueError, match="rate|Hz"):
            make()


def test_a_file_that_is_no_sound_says_so(tmp_path: Path) -> None:
    path = tmp_path / "text.wav"
    path.write_text("not sound")
    with pytest.raises(audiosocket.SoundError, match="text.wav"):
        audiosocket.Clip.open(path)
