"""A server as a reward: texts go out as JSON, numbers come back."""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import ssl
import time
import urllib.error
import urllib.request
import warnings
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from rlhf_lightning.errors import UserError
from rlhf_lightning.rewards.functions import RewardFailure

MAX_ANSWER = 4 * 2**20
"""Bytes of an answer that are read; numbers for a thousand texts fill a hundredth of it."""
MAX_SHOWN = 200
"""Characters of a server's complaint that an error message quotes."""


class HTTPReward:
    """Asks a server for the rewards.

    It POSTs ``{"prompts": [...], "completions": [...], "references": [[...], ...], "meta": [{...}, ...]}`` and expects
    ``{"rewards": [...]}``, one finite number a completion; null says that the server has none for that one.

    Of ``meta`` only what JSON has goes out: texts, finite numbers, true, false, null, and lists and dicts of them. A
    column that holds anything else (a date, say) is left out, and named in a warning.

    Connection errors, time-outs, answers that break off, and the statuses 429 and 5xx are tried again; any other
    status and any other answer would be the same the next time. Redirects are not followed: the token must not go to
    another server.

    Args:
        url: http:// or https://, without a password in it.
        timeout: seconds that a request may take: to connect, for each silence after that, and for the whole answer.
        retries: further tries of a request.
        batch_size: texts a request.
        headers_env: name of an environment variable whose value is sent as ``Authorization: Bearer VALUE``. The value
            itself is never kept, shown or logged.
        backoff: seconds before the second try. They double with each further one, and a random part of up to a half
            is taken off, so that several processes don't come back at the same moment.
        max_wait: the longest such wait. A server that asks for a longer one (``Retry-After``) counts as failed.

    Raises:
        UserError: for an address, a limit or a variable that can't be used.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 30.0,
        retries: int = 4,
        batch_size: int = 64,
        headers_env: str | None = None,
        backoff: float = 1.0,
        max_wait: float = 60.0,
    ) -> None:
        _check_url(url)
        for name, value, fits, least in (
            ("timeout", timeout, timeout > 0, "above 0"),
            ("retries", retries, retries >= 0, "at least 0"),
            ("batch_size", batch_size, batch_size >= 1, "at least 1"),
            ("backoff", backoff, backoff >= 0, "at least 0"),
            ("max_wait", max_wait, max_wait >= 0, "at least 0"),
        ):
            if not fits or not math.isfinite(value):
                raise UserError(f"an HTTP reward's {name} must be {least}, not {value}")
        self.url, self.timeout, self.retries, self.batch_size = url, timeout, retries, batch_size
        self.headers_env, self.backoff, self.max_wait = headers_env, backoff, max_wait
        self._token()
        self._random = random.Random()  # of its own: waiting must not change what the run draws
        self._left_out: set[str] = set()
        # Neither redirects nor any scheme but these two: what isn't added here is not done.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.UnknownHandler(),  # an error for a kind of proxy that there is no handler for
        ):
            self._opener.add_handler(handler)

    @property
    def place(self) -> str:
        """The address without its query, which may hold a secret."""
        return self.url.partition("?")[0].partition("#")[0]

    def __call__(
        self, prompts: list[str], completions: list[str], references: list[list[str]], meta: list[dict[str, Any]]
    ) -> Tensor:
        """(b,) what the server gives.

        Raises:
            RewardFailure: if it gives none for some of the samples; those that it did give come with it.
        """
        plain = self._plain_meta(meta)
        values = torch.full((len(completions),), math.nan)
        reasons: list[str] = []
        for start in range(0, len(completions), self.batch_size):
            part = slice(start, start + self.batch_size)
            body = {
                "prompts": prompts[part],
                "completions": completions[part],
                "references": references[part],
                "meta": plain[part],
            }
            try:
                # Once a part has failed for good, the others are tried once: a server that is down must not cost
                # all tries and time-outs again for each of them.
                answer = self._ask(json.dumps(body).encode("ascii"), 0 if reasons else self.retries)
                values[part] = self._numbers(answer, len(completions[part]))
                if missing := int(values[part].isnan().sum()):
                    raise _Failed(f"gave no finite number for {missing} of {len(completions[part])} completions")
            except _Failed as failure:
                reasons.append(str(failure))
        if reasons:
            raise RewardFailure(f"{self.place} {reasons[0]}", values)
        return values

    def _ask(self, body: bytes, retries: int) -> bytes:
        """The server's answer to one request, with as many further tries."""
        for attempt in range(retries + 1):
            try:
                return self._post(body)
            except _Again as failure:
                wait = min(self.backoff * 2**attempt, self.max_wait) * self._random.uniform(0.5, 1.0)
                if attempt == retries:
                    tries = f" ({attempt + 1} tries)" if attempt else ""
                    raise _Failed(f"{failure}{tries}") from failure
                if failure.wait > self.max_wait:
                    raise _Failed(
                        f"{failure}, and asks to wait {failure.wait:.0f} seconds; max_wait is {self.max_wait:g}"
                    ) from failure
                warnings.warn(f"{self.place} {failure}; it is asked again", stacklevel=3)  # the same is shown once
                time.sleep(max(wait, failure.wait))
        raise AssertionError("unreachable")

    def _post(self, body: bytes) -> bytes:
        """One request."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "rlhf-lightning"}
        if (token := self._token()) is not None:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.url, body, headers, method="POST")
        deadline = time.monotonic() + self.timeout
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                status, wait = response.status, _retry_after(response.headers.get("Retry-After"))
                answer = _read(response, deadline)
        except (OSError, http.client.HTTPException) as error:
            # urllib wraps what happens before the answer; what happens while it is read comes as it is.
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, TimeoutError):
                raise _Again(f"did not answer within {self.timeout:g} seconds") from None
            words = self._hidden(str(cause))
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise _Failed(f"has a certificate that can't be trusted: {words}") from None
            raise _Again(f"can't be reached, or broke off: {type(cause).__name__}: {words}") from None
        if status == 200:
            return answer
        said = " ".join(self._hidden(answer.decode("utf-8", "replace")).split())
        said = "".join(c for c in said[:MAX_SHOWN] if c.isprintable())
        text = f"answered with status {status}" + (f": {said!r}" if said else "")
        if status == 429 or status >= 500:
            raise _Again(text, wait)
        raise _Failed(f"{text} (redirects are not followed)" if 300 <= status < 400 else text)

    def _numbers(self, answer: bytes, count: int) -> Tensor:
        """(count,) the rewards of an answer; NaN where it has null or a number that is not finite."""
        if len(answer) > MAX_ANSWER:
            raise _Failed(f"answered with more than {MAX_ANSWER} bytes")
        try:
            content = json.loads(answer)
        except (ValueError, RecursionError):
            raise _Failed("answered with no JSON") from None
        rewards = content.get("rewards") if isinstance(content, dict) else None
        if not isinstance(rewards, list):
            raise _Failed('answered without a list "rewards"')
        if len(rewards) != count:
            raise _Failed(f"answered with {len(rewards)} rewards for {count} completions")
        for value in rewards:
            if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
                kind = {str: "a text", bool: "true or false"}.get(type(value), "a list or object")
                raise _Failed(f"answered with {kind} among the rewards, not a number")
        values = torch.tensor([_as_float(value) for value in rewards], dtype=torch.float32)
        return torch.where(values.isfinite(), values, math.nan)  # float32 has no 1e39 either

    def _token(self) -> str | None:
        """The bearer token, read anew each time, so that nothing that holds this object holds the secret."""
        if self.headers_env is None:
            return None
        token = os.environ.get(self.headers_env, "").strip()
        # Neither message quotes anything: who gave the token in place of the name would find it in a log.
        if not token:
            raise UserError("an HTTP reward's headers_env must name an environment variable that holds a token")
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise UserError("the token that an HTTP reward's headers_env names has characters that no header can have")
        return token

    def _hidden(self, text: str) -> str:
        """A text of the server's without the token, which it may have echoed."""
        token = self._token()
        return text if token is None else text.replace(token, "(hidden)")

    def _plain_meta(self, meta: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The columns that JSON has words for."""
        kept = [{str(k): v for k, v in row.items() if _is_plain(v)} for row in meta]
        lost = {str(k) for row in meta for k, v in row.items() if not _is_plain(v)} - self._left_out
        if lost:
            self._left_out |= lost
            warnings.warn(
                f"{self.place} is not told of the columns {', '.join(sorted(lost))}: JSON has no such values",
                stacklevel=3,
            )
        return kept


class _Failed(Exception):
    """Why the server gave no rewards; what follows its address in a message."""


class _Again(Exception):
    """The same, where another try may help; not before ``wait`` seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def _check_url(url: str) -> None:
    """Refuse what is no address of a server, before it is asked."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known or not url.isascii() or not url.isprintable() or " " in url:
        raise UserError("an HTTP reward's url must be of the form http://HOST:PORT/PATH or https://...")
    if "@" in parts.netloc:
        raise UserError(
            "an HTTP reward's url must hold no user or password, as configs are logged: name an environment variable "
            "that holds a token in headers_env"
        )


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The whole body, or as much of it as shows that it is too long.

    Raises:
        TimeoutError: if it takes too long; the socket's own time-out only bounds each silence.
        ConnectionError: if it breaks off.
    """
    parts, size = [], 0
    while size <= MAX_ANSWER and (part := response.read1(2**16)):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError
    if size <= MAX_ANSWER and response.length:  # read1() tells no broken answer from a whole one
        raise ConnectionError(f"{response.length} bytes of the answer are missing")
    return b"".join(parts)


def _retry_after(value: str | None) -> float:
    """Seconds that a ``Retry-After`` asks for, as a number or a date; 0 where there is none, or it can't be read."""
    if not value:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max((when.replace(tzinfo=when.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds(), 0.0)


def _as_float(value: float | None) -> float:
    try:
        return math.nan if value is None else float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def _is_plain(value: Any) -> bool:
    """Whether JSON has the value."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    return value is None or isinstance(value, (str, int))
