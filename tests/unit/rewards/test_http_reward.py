"""A reward from a server: what goes out, what comes back, and every way in which that fails."""

from __future__ import annotations

import datetime
import json
import math
import random
import threading
import time
import warnings
from typing import Any

import pytest
import torch
from helpers.reward_server import Handler, Server, breaks_off, hangs_up, lengths, reply, says, serving, status
from helpers.tiny_models import rows

from rlhf_lightning.errors import UserError
from rlhf_lightning.rewards import HTTPReward, RewardFailure, RewardMix

ANSWERS = ["one", "three", "", "answer 3"]
EXPECTED = torch.tensor([0.3, 0.5, 0.0, 0.8])
TOKEN = "s3cret-value"


def ask(server: Server | str, answers: list[str] = ANSWERS, meta: list[dict] | None = None, **options: Any):
    """What the reward gives for some answers; quick to give up, unless told otherwise."""
    url = server if isinstance(server, str) else server.url
    reward = HTTPReward(url, **{"timeout": 5.0, "backoff": 0.001, **options})
    n = len(answers)
    return reward(["p"] * n, answers, [["r", "s"]] * n, meta or [{}] * n)


def failure(server: Server | str, **options: Any) -> RewardFailure:
    with pytest.raises(RewardFailure) as caught:
        ask(server, **options)
    return caught.value


def test_texts_go_out_and_numbers_come_back() -> None:
    """Each sample's four columns, in parts of the batch size; the numbers stand in the samples' order."""
    prompts, meta = (
        ["a", "b", "\ud800 lone", "d"],
        [{"n": i, "ok": True, "none": None, "x": [1, {"y": 0.5}]} for i in range(4)],
    )
    with serving(lengths) as server:
        reward = HTTPReward(server.url, batch_size=3)
        values = reward(prompts, ANSWERS, [["r"], [], ["s", "t"], ["é"]], meta)
        torch.testing.assert_close(values, EXPECTED)
        assert reward([], [], [], []).shape == (0,)
    first, second = server.requests
    assert first == {
        "prompts": prompts[:3],
        "completions": ANSWERS[:3],
        "references": [["r"], [], ["s", "t"]],
        "meta": meta[:3],
    }
    assert second == {"prompts": ["d"], "completions": ["answer 3"], "references": [["é"]], "meta": meta[3:]}
    assert server.tokens == [None, None]


def test_columns_that_json_has_no_words_for_are_left_out() -> None:
    """Said once a column; the others go out."""
    meta = [{"n": 1, "when": datetime.date(2024, 1, 1), "bad": math.nan, "deep": {"x": {1: 2}}, 7: "seven"}] * 4
    with serving(lengths) as server:
        reward = HTTPReward(server.url)
        with pytest.warns(UserWarning, match="columns bad, deep, when"):
            reward(["p"] * 4, ANSWERS, [[]] * 4, meta)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reward(["p"] * 4, ANSWERS, [[]] * 4, meta)
    assert server.requests[0]["meta"] == [{"n": 1, "7": "seven"}] * 4


@pytest.mark.parametrize("bad", [status(500), status(503), status(429), breaks_off, hangs_up])
def test_what_may_pass_is_tried_again(bad) -> None:
    with serving(bad, bad, lengths) as server, pytest.warns(UserWarning, match=r"http://127.* it is asked again"):
        torch.testing.assert_close(ask(server, retries=2), EXPECTED)
    assert len(server.requests) == 3
    assert server.requests[0] == server.requests[2]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (status(500, b"out of\nmemory"), "answered with status 500: 'out of memory' (3 tries)"),
        (status(429), "answered with status 429 (3 tries)"),
        (breaks_off, "bytes of the answer are missing (3 tries)"),
        (hangs_up, "can't be reached, or broke off: RemoteDisconnected"),
    ],
)
def test_what_never_passes_fails_after_its_tries(bad, said: str) -> None:
    with serving(bad) as server:
        failed = failure(server, retries=2)
    assert said in str(failed)
    assert str(failed).startswith(server.url)
    assert failed.values.isnan().all()
    assert failed.values.shape == (4,)
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", [400, 401, 404, 422, 204, 301, 307])
def test_any_other_status_is_asked_for_once(code: int) -> None:
    with serving(status(code)) as server:
        assert f"status {code}" in str(failure(server))
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(code: int, monkeypatch, tmp_path) -> None:
    """Neither to another server, which the token isn't meant for, nor to a file."""
    monkeypatch.setenv("JUDGE_TOKEN", TOKEN)
    (tmp_path / "rewards.json").write_text('{"rewards": [1, 1, 1, 1]}')
    with serving(lengths) as other:
        for target in (other.url, (tmp_path / "rewards.json").as_uri()):
            with serving(status(code, Location=target)) as server:
                assert "redirects are not followed" in str(failure(server, headers_env="JUDGE_TOKEN"))
    assert other.requests == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"<html>", "no JSON"),
        (b"\xff\xfe\xfa", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"rewards": [1, 2, 3, 4]', "no JSON"),
        (b"[1, 2, 3, 4]", 'without a list "rewards"'),
        (b"{}", 'without a list "rewards"'),
        (b'{"rewards": null}', 'without a list "rewards"'),
        (b'{"rewards": {"0": 1}}', 'without a list "rewards"'),
        (b'{"rewards": [1, 2, 3]}', "3 rewards for 4"),
        (b'{"rewards": [1, 2, 3, 4, 5]}', "5 rewards for 4"),
        (b'{"rewards": [1, 2, 3, "4"]}', "a text among the rewards"),
        (b'{"rewards": [1, 2, 3, true]}', "true or false among the rewards"),
        (b'{"rewards": [[1], [2], [3], [4]]}', "a list or object among the rewards"),
        (b'{"rewards": [1, 2, 3, 4], "x": "' + b"y" * 5_000_000 + b'"}', "more than 4194304 bytes"),
    ],
    ids=range(15),
)
def test_nonsense_is_a_failure_of_the_whole_request(body: bytes, said: str) -> None:
    """And is not asked for again."""
    with serving(says(body)) as server:
        failed = failure(server)
    assert said in str(failed)
    assert failed.values.isnan().all()
    assert len(server.requests) == 1


@pytest.mark.parametrize("value", [b"null", b"NaN", b"Infinity", b"-1e999", b"1e39", b"1" + b"0" * 400])
def test_a_sample_without_a_finite_number_fails_alone(value: bytes) -> None:
    with serving(says(b'{"rewards": [1, 2.5, ' + value + b", -3]}")) as server:
        failed = failure(server)
    assert "no finite number for 1 of 4" in str(failed)
    torch.testing.assert_close(failed.values, torch.tensor([1, 2.5, math.nan, -3]), equal_nan=True)
    assert len(server.requests) == 1


def test_a_part_that_fails_takes_no_other_with_it() -> None:
    """The other parts keep their numbers; what comes after a part that failed for good is tried once."""
    with serving(lengths, status(400), lengths, lengths) as server:
        failed = failure(server, batch_size=1)
    torch.testing.assert_close(failed.values, torch.tensor([0.3, math.nan, 0.0, 0.8]), equal_nan=True)
    with serving(status(500)) as server:
        failed = failure(server, batch_size=1, retries=3)
    assert len(server.requests) == 4 + 3
    assert "(4 tries)" in str(failed)


def test_a_slow_server_is_given_up() -> None:
    over = threading.Event()
    with serving(lambda handler, body: over.wait(10)) as server:
        begun = time.monotonic()
        failed = failure(server, timeout=0.1, retries=1)
        assert time.monotonic() - begun < 3
        over.set()
    assert "did not answer within 0.1 seconds (2 tries)" in str(failed)
    assert len(server.requests) == 2


def test_a_server_that_trickles_is_given_up() -> None:
    """No single silence is too long, but the whole is."""
    over = threading.Event()

    def trickle(handler: Handler, body: dict) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not over.wait(0.02):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    with serving(trickle) as server:
        begun = time.monotonic()
        failed = failure(server, timeout=0.3, retries=0)
        assert time.monotonic() - begun < 3
        over.set()
    assert "did not answer within 0.3 seconds" in str(failed)


def test_slow_once_then_well() -> None:
    def slow(handler: Handler, body: dict) -> None:
        time.sleep(0.5)

    with serving(slow, lengths) as server:
        torch.testing.assert_close(ask(server, timeout=0.15), EXPECTED)


def test_a_server_that_starts_late() -> None:
    """Refused connections are tried again."""
    with Server(lengths) as closed:
        port = closed.server_port
    url = f"http://127.0.0.1:{port}/score"
    assert "ConnectionRefusedError" in str(failure(url, retries=1))
    results: list[Any] = []
    asking = threading.Thread(target=lambda: results.append(ask(url, retries=12, backoff=0.01, max_wait=0.5)))
    asking.start()
    time.sleep(0.05)
    with serving(lengths, port=port):
        asking.join()
    torch.testing.assert_close(results[0], EXPECTED)


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """How long it would have waited, without doing so."""
    waited: list[float] = []
    monkeypatch.setattr("rlhf_lightning.rewards.http.time.sleep", waited.append)
    return waited


def test_waits_double_and_vary(waits) -> None:
    """Up to the bound; drawn apart from everyone else's random numbers."""
    state, numbers = random.getstate(), torch.get_rng_state()
    with serving(status(500)) as server:
        failure(server, retries=6, backoff=1.0, max_wait=8.0)
    assert len(waits) == 6
    for waited, most in zip(waits, [1, 2, 4, 8, 8, 8], strict=True):
        assert most / 2 <= waited <= most
    assert len({waited / most for waited, most in zip(waits, [1, 2, 4, 8, 8, 8], strict=True)}) > 1
    assert random.getstate() == state
    assert torch.equal(torch.get_rng_state(), numbers)


def test_a_server_says_when_to_come_back(waits) -> None:
    """In seconds or as a date; what can't be read is no wish; more than the bound is a failure at once."""
    soon = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=30)).strftime(
        "%a, %d %b %Y %H:%M:%S GMT"
    )
    script = [status(429, Retry_After=value) for value in ("7", soon, "whenever", "Mon, 01 Jan 2001 00:00:00 GMT")]
    with serving(*script, lengths) as server:
        torch.testing.assert_close(ask(server), EXPECTED)
    assert waits[0] == 7
    assert 25 < waits[1] <= 30
    assert max(waits[2:]) < 0.1
    waits.clear()
    with serving(status(503, Retry_After="3600")) as server:
        assert "asks to wait 3600 seconds; max_wait is 60" in str(failure(server))
    assert waits == []
    assert len(server.requests) == 1


def test_a_token_is_sent_and_never_shown(monkeypatch, caplog, recwarn) -> None:
    """Not even when the server repeats it."""
    monkeypatch.setenv("JUDGE_TOKEN", TOKEN)
    reward = HTTPReward("http://127.0.0.1:1/score?key=abc", retries=0, headers_env="JUDGE_TOKEN")
    seen = [repr(vars(reward)), str(failure(reward.url, retries=0, headers_env="JUDGE_TOKEN"))]
    assert "abc" not in seen[1]

    def echo(handler: Handler, body: dict) -> None:
        text = (handler.headers["Authorization"] + "!").encode()
        reply(handler, text * 20, 403)

    with serving(lengths) as server:
        torch.testing.assert_close(ask(server, headers_env="JUDGE_TOKEN"), EXPECTED)
        assert server.tokens == [f"Bearer {TOKEN}"]
    with serving(echo) as server:
        seen.append(str(failure(server, headers_env="JUDGE_TOKEN")))
        assert "Bearer (hidden)!Bearer (hidden)!" in seen[-1]
        mix = RewardMix({"judge": HTTPReward(server.url, headers_env="JUDGE_TOKEN")}, on_failure="mask")
        mix.each(rows(), ANSWERS, torch.device("cpu"))
        seen += [mix.reasons["judge"], *(str(w.message) for w in recwarn)]
    assert any("Bearer (hidden)" in text for text in seen[3:])
    for text in [*seen, caplog.text]:
        assert TOKEN not in text
        assert TOKEN[:6] not in text


def test_a_token_that_cannot_be_is_refused(monkeypatch) -> None:
    """Before anything is sent, and without showing it: it may have been given in place of its name."""
    monkeypatch.delenv("JUDGE_TOKEN", raising=False)
    for name in ("JUDGE_TOKEN", "sk-live-123"):
        with pytest.raises(UserError, match="headers_env") as caught:
            HTTPReward("http://a/b", headers_env=name)
        assert "sk-live" not in str(caught.value)
    for value in ("two\nlines", "with blank", "é"):
        monkeypatch.setenv("JUDGE_TOKEN", value)
        with pytest.raises(UserError, match="no header can have") as caught:
            HTTPReward("http://a/b", headers_env="JUDGE_TOKEN")
        assert value not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "file:///etc/passwd"}, "http://HOST"),
        ({"url": "ftp://a/b"}, "http://HOST"),
        ({"url": "localhost:8000"}, "http://HOST"),
        ({"url": "http://"}, "http://HOST"),
        ({"url": "http://a:99999/"}, "http://HOST"),
        ({"url": "http://a/b\r\nX: y"}, "http://HOST"),
        ({"url": "http://a/b c"}, "http://HOST"),
        ({"url": "http://user:pw@a/b"}, "headers_env"),
        ({"timeout": 0.0}, "timeout must be above 0"),
        ({"timeout": math.nan}, "timeout must be above 0"),
        ({"timeout": math.inf}, "timeout must be above 0"),
        ({"retries": -1}, "retries must be at least 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"backoff": -1.0}, "backoff must be at least 0"),
        ({"max_wait": -1.0}, "max_wait must be at least 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        HTTPReward(**{"url": "http://a/b", **options})
    assert "pw" not in str(caught.value)


def test_the_mix_stops_or_masks() -> None:
    """With stop the reason ends the run; with mask the samples concerned alone are NaN."""
    with serving(lengths, status(500), lengths) as server:
        reward = HTTPReward(server.url, retries=0, batch_size=2)
        with pytest.raises(UserError, match=r"the reward 'judge' failed: http://127.*status 500"):
            RewardMix({"judge": reward}).each(rows(), ANSWERS, torch.device("cpu"))
    with serving(lengths, status(500)) as server:
        mix = RewardMix({"judge": HTTPReward(server.url, retries=0, batch_size=2)}, on_failure="mask")
        with pytest.warns(UserWarning, match="'judge' failed: http.*status 500"):
            scores = mix.each(rows(), ANSWERS, torch.device("cpu"))
    torch.testing.assert_close(scores["judge"], torch.tensor([0.3, 0.5, math.nan, math.nan]), equal_nan=True)
    assert mix.failures == {"judge": 2}
    assert json.dumps(server.requests[0]["meta"]) == '[{"number": 0}, {"number": 1}]'
