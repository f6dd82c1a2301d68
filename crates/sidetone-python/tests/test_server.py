"""The asyncio interface. What the caller heard is the judge."""

from __future__ import annotations

import array
import asyncio
import gc
import uuid
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import audiosocket
import pytest
from audiosocket import testing

SOON = 20.0


def ramp(begin: int, samples: int) -> bytes:
    """Samples that say which they are, none of them zero."""
    return array.array("h", [(begin + at) % 32_000 + 1 for at in range(samples)]).tobytes()


@asynccontextmanager
async def serving(
    handler: Callable[[audiosocket.Call], Awaitable[object]], **settings: Any
) -> AsyncIterator[audiosocket.Server]:
    async with audiosocket.Server(port=0, **settings) as server:
        serving = asyncio.create_task(server.serve(handler))
        yield server
        await server.close()
        await serving


def call(server: audiosocket.Server, hang_up_after: float = SOON, **what: Any) -> Awaitable[testing.PlacedCall]:
    return testing.place_call(*server.address, hang_up_after=hang_up_after, **what)


async def test_a_clip_is_heard_whole_and_then_the_call_finishes() -> None:
    clip = ramp(0, 8_000)

    async def handler(call: audiosocket.Call) -> None:
        call.play(clip)

    async with serving(handler) as server:
        placed = await call(server)
    assert placed.share_heard(clip) == 1
    assert "hung up" in placed.ended


async def test_an_echo_is_what_the_caller_said() -> None:
    said = ramp(0, 16_000)

    async def echo(call: audiosocket.Call) -> None:
        live = call.live()
        async for event in call:
            if isinstance(event, audiosocket.Audio):
                live.push(event.data)

    async with serving(echo) as server:
        placed = await call(server, 3, say=said)
    # On a busy machine a live frame may be skipped.
    assert placed.share_heard(said) > 0.9


async def test_events_can_be_matched_and_the_last_is_the_end() -> None:
    seen: list[Any] = []

    async def handler(call: audiosocket.Call) -> None:
        mark = None
        async for event in call:
            match event:
                case audiosocket.Audio(data=data, rate=8_000, offset=offset):
                    if not seen:
                        call.play(ramp(0, 800))
                        mark = call.mark()
                        seen.append(("audio", len(data), event.samples[0], offset >= 0))
                case audiosocket.Dtmf(digit=digit):
                    seen.append(digit)
                case audiosocket.MarkReached(mark=reached):
                    seen.append(("mark", reached == mark))
                case audiosocket.PlaybackDrained():
                    seen.append("drained")
                case audiosocket.Ended(reason=reason, by=by):
                    seen.append((reason, by))

    async with serving(handler) as server:
        await call(server, 1.5, say=b"\1\0" * 8_000, digits=[("4#", 0.8)])
    assert seen == [
        ("audio", 320, 1, True),
        ("mark", True),
        "drained",
        "4",
        "#",
        ("caller_hung_up", "caller"),
    ]


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "array", "numpy", "other rate"])
async def test_samples_come_in_many_shapes(kind: str) -> None:
    clip = ramp(0, 1_600)
    samples: Any = {
        "bytes": clip,
        "bytearray": bytearray(clip),
        "memoryview": memoryview(clip),
        "array": array.array("h", clip),
    }.get(kind, clip)
    if kind == "numpy":
        samples = pytest.importorskip("numpy").frombuffer(clip, "<i2")
    rate = 24_000 if kind == "other rate" else 8_000
    if kind == "other rate":
        samples = audiosocket.resample(clip, 8_000, rate)
    heard: list[audiosocket.Heard] = []

    async def handler(call: audiosocket.Call) -> None:
        heard.append(await call.play(samples, rate))

    async with serving(handler) as server:
        placed = await call(server)
    assert heard == [audiosocket.Heard(200.0, 0.0)]
    if kind != "other rate":
        assert placed.share_heard(clip) == 1


@pytest.mark.parametrize(
    ("samples", "error", "says"),
    [
        (b"\0", ValueError, "1 bytes are no whole number of samples"),
        (array.array("f", [0.5]), TypeError, "floats have to be scaled"),
        ("text", TypeError, "holds no samples"),
    ],
)
async def test_what_is_no_audio_says_what_is(samples: Any, error: type[Exception], says: str) -> None:
    raised: list[Exception] = []

    async def handler(call: audiosocket.Call) -> None:
        try:
            call.play(samples)
        except Exception as error:
            raised.append(error)

    async with serving(handler) as server:
        await call(server)
    assert type(raised[0]) is error
    assert says in str(raised[0])


async def test_a_clear_says_what_was_heard() -> None:
    clip = ramp(0, 24_000)
    told: list[audiosocket.Heard] = []

    async def handler(call: audiosocket.Call) -> None:
        playback = call.play(clip)
        async for event in call:
            if isinstance(event, audiosocket.Dtmf):
                told.append(await call.clear())
                told.append(await playback)
                return

    async with serving(handler) as server:
        placed = await call(server, digits=[("1", 0.5)])
    assert told[0] == told[1]
    assert told[0].played_ms + told[0].discarded_ms == 3_000
    assert placed.share_heard(clip) == pytest.approx(told[0].played_ms / 3_000, abs=1e-6)


async def test_a_wait_that_is_cancelled_stops_the_playback() -> None:
    clip, other = ramp(0, 24_000), ramp(25_000, 800)

    async def handler(call: audiosocket.Call) -> None:
        try:
            await asyncio.wait_for(call.play(clip), 0.3)
        except asyncio.TimeoutError:
            call.play(other)

    async with serving(handler) as server:
        placed = await call(server)
    assert 0 < placed.share_heard(clip) < 0.9
    assert placed.share_heard(other) == 1


async def test_finished_plays_on_when_the_wait_is_cancelled() -> None:
    clip = ramp(0, 8_000)

    async def handler(call: audiosocket.Call) -> None:
        playback = call.play(clip)
        try:
            await asyncio.wait_for(playback.finished(), 0.2)
        except asyncio.TimeoutError:
            assert not playback.is_finished
            assert playback.heard is None

    async with serving(handler) as server:
        assert (await call(server)).share_heard(clip) == 1


async def test_an_event_is_not_lost_when_the_wait_for_it_is_cancelled() -> None:
    digits: list[str] = []

    async def handler(call: audiosocket.Call) -> None:
        while True:
            try:
                event = await asyncio.wait_for(call.__anext__(), 0.005)
            except asyncio.TimeoutError:
                continue
            except StopAsyncIteration:
                return
            if isinstance(event, audiosocket.Dtmf):
                digits.append(event.digit)

    async with serving(handler) as server:
        await call(server, 2, digits=[("0123", 0.2)])
    assert digits == ["0", "1", "2", "3"]


async def test_an_utterance_counts_as_one() -> None:
    clip = ramp(0, 8_000)
    told: list[audiosocket.Heard] = []

    async def handler(call: audiosocket.Call) -> None:
        with call.utterance() as utterance:
            for begin in range(0, len(clip), 1_000):
                utterance.write(clip[begin : begin + 1_000])
                await asyncio.sleep(0)
        told.append(await utterance.playback)
        with pytest.raises(audiosocket.ClearedError):
            utterance.write(clip)

    async with serving(handler) as server:
        assert (await call(server)).share_heard(clip) == 1
    assert told == [audiosocket.Heard(1_000.0, 0.0)]


async def test_the_admission_hook_attaches_data_and_rejects() -> None:
    wanted, unwanted, failing = (uuid.uuid4() for _ in range(3))
    ends: list[audiosocket.CallSummary] = []
    got: list[Any] = []
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def admit(request: audiosocket.CallRequest) -> audiosocket.Accept | None:
        await asyncio.sleep(0)
        if request.id == failing:
            raise RuntimeError("as this test wants it")
        return audiosocket.Accept({"name": "Ada"}) if request.id == wanted else None

    async def handler(call: audiosocket.Call) -> None:
        got.append((call.id, call.data))

    async with serving(handler, admit=admit, on_call_end=ends.append) as server:
        for id in (wanted, unwanted, failing):
            await call(server, id=id)
        while len(ends) < 3:
            await asyncio.sleep(0.01)
    assert got == [(wanted, {"name": "Ada"})]
    assert {end.id: end.ended.reason for end in ends} == {
        wanted: "finished",
        unwanted: "refused",
        failing: "refused",
    }
    assert [end.data for end in ends if end.id == wanted] == [{"name": "Ada"}]
    assert [str(context["exception"]) for context in reported] == ["as this test wants it"]


async def test_a_plain_function_may_decide_too() -> None:
    handled: list[uuid.UUID] = []

    async def handler(call: audiosocket.Call) -> None:
        handled.append(call.id)

    for answer in (True, False):
        async with serving(handler, admit=lambda _, answer=answer: answer) as server:
            await call(server)
    assert len(handled) == 1


async def test_a_call_may_not_last_longer_than_admitted() -> None:
    closing: list[audiosocket.Closing] = []

    async def handler(call: audiosocket.Call) -> None:
        async for event in call:
            if isinstance(event, audiosocket.Closing):
                closing.append(event)

    admit = lambda _: audiosocket.Accept(max_duration=0.5)  # noqa: E731
    async with serving(handler, admit=admit) as server:
        placed = await call(server)
    assert placed.duration < SOON
    assert [event.reason for event in closing] == ["max_duration"]


async def test_a_handler_that_fails_ends_its_call_alone() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    failing, clip = uuid.uuid4(), ramp(0, 8_000)

    async def handler(call: audiosocket.Call) -> None:
        if call.id == failing:
            raise RuntimeError("as this test wants it")
        await call.play(clip)

    async with serving(handler) as server:
        _, other = await asyncio.gather(call(server, id=failing), call(server))
    assert other.share_heard(clip) == 1
    assert [str(context["exception"]) for context in reported] == ["as this test wants it"]
    assert reported[0]["call"].id == failing


async def test_a_hang_up_is_no_failure_of_a_handler() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def handler(call: audiosocket.Call) -> None:
        await call.closed()
        call.play(b"\0\0")

    async with serving(handler) as server:
        await call(server, 0.3)
    assert reported == []


async def test_calls_can_be_taken_one_by_one_and_one_that_is_forgotten_is_hung_up() -> None:
    async with audiosocket.Server(port=0) as server:
        placing = asyncio.gather(call(server), call(server))
        for _ in range(2):
            taken = await server.__anext__()
            assert isinstance(taken.id, uuid.UUID)
            assert taken.peer[0] == "127.0.0.1"
            del taken
            gc.collect()
        for placed in await placing:
            assert "hung up" in placed.ended


async def test_drain_waits_for_calls_and_rejects_new_ones() -> None:
    closing: list[str] = []
    clip = ramp(0, 8_000)

    async def handler(call: audiosocket.Call) -> None:
        await call.play(clip)
        async for event in call:
            if isinstance(event, audiosocket.Closing):
                closing.append(event.reason)
                return

    async with audiosocket.Server(port=0) as server:
        serving = asyncio.create_task(server.serve(handler))
        placing = asyncio.ensure_future(call(server))
        while server.stats.running == 0:
            await asyncio.sleep(0.01)
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        late = await call(server)
        assert (await placing).share_heard(clip) == 1
        await draining
        await serving
    assert closing == ["shutdown"]
    assert late.duration < 1


async def test_drain_hangs_up_after_its_grace_time() -> None:
    async def handler(call: audiosocket.Call) -> None:
        await call.closed()

    async with audiosocket.Server(port=0) as server:
        serving = asyncio.create_task(server.serve(handler))
        placing = asyncio.ensure_future(call(server))
        while server.stats.running == 0:
            await asyncio.sleep(0.01)
        await server.drain(0.2)
        assert (await placing).duration < SOON
        await serving


async def test_a_recording_has_both_sides(tmp_path: Path) -> None:
    said, played = ramp(0, 8_000), ramp(9_000, 4_000)
    reports: list[audiosocket.RecordingReport] = []

    async def handler(call: audiosocket.Call) -> None:
        recording = call.record(tmp_path)
        call.play(played)
        await call.closed()
        reports.append(await recording.ended())

    async with serving(handler) as server:
        await call(server, 1.5, say=said)
    [report] = reports
    assert report.failure is None
    with wave.open(report.files[0]) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 8_000)
        both = array.array("h", file.readframes(file.getnframes()))
    assert said[:2_000] in both[0::2].tobytes()
    assert played in both[1::2].tobytes()


async def test_a_recording_is_called_as_the_program_says(tmp_path: Path) -> None:
    files: list[Path] = []

    async def handler(call: audiosocket.Call) -> None:
        recording = call.record(tmp_path / "made" / "ticket-7.wav")
        await call.closed()
        files.extend(map(Path, (await recording.ended()).files))

    async with serving(handler) as server:
        for _ in range(2):
            await call(server, 0.1)
    assert files == [tmp_path / "made" / "ticket-7.wav", tmp_path / "made" / "ticket-7-2.wav"]


async def test_recording_into_many_directories_takes_no_thread_for_each(tmp_path: Path) -> None:
    def recorders() -> int:
        threads = Path("/proc/self/task").glob("*/comm")
        return sum(thread.read_text() == "sidetone-record\n" for thread in threads)

    files: list[str] = []

    async def handler(call: audiosocket.Call) -> None:
        recording = call.record(tmp_path / str(call.id) / "call.wav")
        await call.closed()
        files.extend((await recording.ended()).files)

    async with serving(handler) as server:
        for placed in range(2, 12, 2):
            await asyncio.gather(*(call(server, 0.1) for _ in range(2)))
            while len(files) < placed:
                await asyncio.sleep(0.01)
        # Those of the last two calls.
        assert 0 < recorders() <= 2
    assert recorders() == 0
    assert sorted(map(Path, files)) == sorted(tmp_path.glob("*/call.wav"))


@pytest.mark.parametrize("path", ["/proc/no-such-place", "/proc/no-such-place/call.wav"])
async def test_a_recording_that_cannot_be_says_why(path: str) -> None:
    raised: list[Exception] = []

    async def handler(call: audiosocket.Call) -> None:
        try:
            call.record(path)
        except audiosocket.RecordingError as error:
            raised.append(error)

    async with serving(handler) as server:
        await call(server)
    assert "can't record into /proc/no-such-place;" in str(raised[0])


async def test_a_file_is_played_and_one_that_cannot_be_says_why(tmp_path: Path) -> None:
    clip, path = ramp(0, 4_000), tmp_path / "clip.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(clip)
    heard: list[audiosocket.Heard] = []

    async def handler(call: audiosocket.Call) -> None:
        heard.append(await call.play_file(path))
        with pytest.raises(audiosocket.SoundError, match="missing"):
            await call.play_file(tmp_path / "missing.wav")

    async with serving(handler) as server:
        assert (await call(server)).share_heard(clip) == 1
    assert heard == [audiosocket.Heard(500.0, 0.0)]


async def test_what_nobody_reads_is_bounded_and_told() -> None:
    lagged: list[int] = []

    async def handler(call: audiosocket.Call) -> None:
        await asyncio.sleep(1)
        async for event in call:
            if isinstance(event, audiosocket.Lagged):
                lagged.append(event.frames)
                return

    async with serving(handler) as server:
        await call(server, say=ramp(0, 24_000))
    assert lagged[0] > 20


async def test_a_second_reader_is_told_so() -> None:
    raised: list[Exception] = []

    async def handler(call: audiosocket.Call) -> None:
        first = asyncio.ensure_future(call.__anext__())
        await asyncio.sleep(0)
        while first.done():
            first = asyncio.ensure_future(call.__anext__())
            await asyncio.sleep(0)
        try:
            await call.__anext__()
        except RuntimeError as error:
            raised.append(error)
        await first

    async with serving(handler) as server:
        await call(server)
    assert "another task reads" in str(raised[0])


async def test_a_handler_may_close_the_server() -> None:
    async with audiosocket.Server(port=0) as server:

        async def handler(call: audiosocket.Call) -> None:
            await server.close()

        serving = asyncio.create_task(server.serve(handler))
        placed = await call(server)
        await serving
    assert placed.duration < SOON


async def test_several_tasks_may_take_calls() -> None:
    async with audiosocket.Server(port=0) as server:
        taking = [asyncio.create_task(server.__anext__()) for _ in range(2)]
        placing = [asyncio.ensure_future(call(server, 1)) for _ in taking]
        ids = {taken.id for taken in await asyncio.gather(*taking)}
        await asyncio.gather(*placing)
    assert len(ids) == 2


def test_an_address_that_others_reach_needs_a_word_on_who_may_call() -> None:
    async def start() -> None:
        async with audiosocket.Server("0.0.0.0", 0):
            pass

    with pytest.raises(ValueError, match="allow="):
        asyncio.run(start())


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"codec": "opus"}, "no codec"), ({"allow": "everybody"}, "everybody"), ({"max_duration": -1.0}, "-1")],
)
async def test_wrong_settings_say_what_is_wrong(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        async with audiosocket.Server(port=0, **settings):
            pass


async def test_a_server_says_what_it_is_at() -> None:
    server = audiosocket.Server(port=0)
    assert "not started" in repr(server)
    with pytest.raises(RuntimeError, match="does not listen yet"):
        server.address
    async with server:
        assert f"serving 127.0.0.1:{server.address[1]}" in repr(server)
    assert "closed" in repr(server)
    with pytest.raises(RuntimeError, match="once"):
        await server.start()
