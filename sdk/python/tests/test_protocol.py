"""What needs no server: hidden characters, event streams cut anywhere, backoff."""

from __future__ import annotations

import random

import httpx
import pytest

import provara
from provara._protocol import Backoff, Call, EventFeed, Pause, ask, checked_id, fault_of
from provara._visible import visible, visible_line

STREAM = (
    b'id: 4\n\n: caught up\n\nid: 5\nevent: plan.queued\ndata: {"a":"\xc3\xbc"}\n\n: still here\n\n'
    b'id: 5\nevent: plan.queued\ndata: {"again":1}\n\nid: 7\r\nevent: x\r\ndata: {}\r\n\r\n'
    b'event: dropped\ndata: {"reason":"too_slow","last_event_id":9}\n\nid: 8\nevent: cut\ndata: {"ha'
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_stream_cut_anywhere_yields_the_same_events(size: int) -> None:
    feed = EventFeed(None, None, 30.0)
    found = [e for at in range(0, len(STREAM), size) for e in feed.feed(STREAM[at : at + size])]
    assert found == [provara.Event(5, "plan.queued", {"a": "ü"}), provara.Event(7, "x", {})]
    assert feed.call().headers["last-event-id"] == "7"
    assert feed.feed(b'lf"}\n\n') == [], "half an event of the last stream went into this one"


def test_a_new_reader_resumes_from_the_opening() -> None:
    feed = EventFeed(None, ["a", "b"], 30.0)
    assert "last-event-id" not in feed.call().headers
    assert feed.feed(b"id: 4\n\n") == []
    assert (feed.call().headers["last-event-id"], feed.call().params) == ("4", {"types": "a,b"})


def test_random_bytes_are_no_events_and_a_line_without_end_is_refused() -> None:
    feed, chance = EventFeed(0, None, 30.0), random.Random(7)
    for _ in range(200):
        feed.feed(chance.randbytes(200))
    with pytest.raises(provara.ProvaraError, match="line without end"):
        for _ in range(10):
            feed.feed(b"x" * (1 << 20))


def test_a_stream_that_only_begins_is_given_up() -> None:
    feed = EventFeed(0, None, 3.0)
    with pytest.raises(provara.ProvaraError, match="ends as soon as it begins"):
        for _ in range(100):
            feed.call()
            feed.feed(b": caught up\n\n")
            feed.pause(None)


def test_hidden_characters_are_shown() -> None:
    assert visible_line("a\tb\n\x1b[2J\x7f\x9b\u202e\u200b\u2028\ufeff\u00a0") == (
        "a⟦U+0009⟧b⟦U+000A⟧⟦U+001B⟧[2J⟦U+007F⟧⟦U+009B⟧⟦U+202E⟧⟦U+200B⟧⟦U+2028⟧⟦U+FEFF⟧⟦U+00A0⟧"
    )
    assert visible("a\tü\n⟦\r") == "a\tü\n⟦U+27E6⟧⟦U+000D⟧"
    for number in range(0x110000):
        shown = visible_line(chr(number))
        assert shown.isprintable(), hex(number)


def test_a_message_is_bounded_and_shows_what_it_is_told() -> None:
    request = httpx.Request("GET", "http://127.0.0.1/")
    answer = httpx.Response(400, json={"detail": "\x1b[2J" + "x" * 100_000, "code": "c"}, request=request)
    fault = fault_of(answer)
    assert isinstance(fault, provara.UnexpectedAnswer)
    assert str(fault).startswith("400 ⟦U+001B⟧[2J")
    assert len(str(fault)) < 2200
    for status, kind in [(401, provara.AuthenticationError), (423, provara.Frozen), (502, provara.ServerUnavailable)]:
        other = fault_of(httpx.Response(status, text="<html>", request=request))
        assert type(other) is kind


def test_pauses_grow_and_stay_bounded() -> None:
    backoff = Backoff()
    pauses = [backoff.next() for _ in range(50)]
    assert max(pauses) <= 5.0
    assert pauses[0] <= 0.1
    assert min(pauses[10:]) >= 2.5


def answered(call: Call, response: httpx.Response | httpx.TransportError, patience: float) -> tuple[int, float]:
    """How often `call` was sent, and how long it paused altogether, when it is always answered so."""
    flow = ask(call, patience)
    sent, paused = 0, 0.0
    step = next(flow)
    with pytest.raises(provara.ProvaraError):
        while True:
            if isinstance(step, Pause):
                paused += step.seconds
                step = flow.send(None)
                continue
            sent += 1
            step = flow.throw(response) if isinstance(response, httpx.TransportError) else flow.send(response)
    return sent, paused


def test_only_what_is_safe_is_sent_again() -> None:
    request = httpx.Request("POST", "http://127.0.0.1/")
    lost, refused = httpx.ReadError("x", request=request), httpx.ConnectError("x", request=request)
    away = httpx.Response(503, json={"detail": "x"}, headers={"retry-after": "1"}, request=request)
    full = httpx.Response(429, json={"detail": "x"}, headers={"retry-after": "7"}, request=request)
    decision, look = Call("POST", "/approve/x"), Call("GET", "/pending", repeatable=True)
    waiting = Call("GET", "/commands/x", repeatable=True, patient=True)
    assert [answered(decision, fault, 30.0)[0] for fault in (lost, refused, away)] == [1, 1, 1]
    assert [answered(look, fault, 30.0)[0] for fault in (lost, refused, away)] == [3, 1, 3]
    assert answered(waiting, refused, 30.0)[0] == 1
    for call in (decision, look, waiting):
        assert answered(call, full, 30.0) == (5, 28.0)
        assert answered(call, full, 6.9) == (1, 0.0)
    sent, paused = answered(waiting, lost, 30.0)
    assert sent > 8
    assert paused <= 30.0


def test_an_id_is_an_id() -> None:
    assert checked_id("20250115_143022_a1b2c3d4") == "20250115_143022_a1b2c3d4"
    with pytest.raises(provara.ConfigurationError):
        checked_id("../x")
