"""Sends one request, and says of every error whether it may be tried again, may have been billed, or ends the run.

The `openai` package speaks to any compatible server; its own retries are off, so that retries have one layer.
"""

import email.utils
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx2
import openai

from stages.errors import BadInput
from stages.servers.budget import QuotaExhausted
from stages.servers.request import CHAT, Request, checked_endpoint

RETRIED = (408, 409, 429)
"""Besides every 5xx."""
QUOTA = ("insufficient_quota", "billing_hard_limit_reached")
"""Error codes under which a 429 will not pass."""
Result = TypeVar("Result")


class Unanswered(Exception):
    """A sending brought no answer. `retry`: it may be tried again; `billed`: it may have been paid for all the same;
    `wait`: seconds that the server asked for; `parameter`: the one that it refuses."""

    def __init__(
        self, problem: str, *, retry: bool, billed: bool, wait: float | None = None, parameter: str = ""
    ) -> None:
        super().__init__(problem)
        self.problem, self.retry, self.billed, self.wait, self.parameter = problem, retry, billed, wait, parameter


class NotOffered(BadInput):
    """The server does not have what was asked for, or not for this key."""

    said = ""
    """The server's own words, after its status."""


def read_key(variable: str | None) -> str:
    """The API key, from the environment alone. Raises BadInput where the variable is not set; `None` needs no key."""
    if variable is None:
        return ""
    if not (key := os.environ.get(variable, "").strip()):
        raise BadInput(
            "api_key_env", f"the environment has no {variable}; export it, or name the variable that holds the key"
        )
    if not (key.isascii() and key.isprintable()):  # what cannot be sent would be shown in the error that says so
        raise BadInput("api_key_env", f"what {variable} holds is no key: it has line breaks or letters that no key has")
    return key


class Wire:
    """One server and one key; used by many threads. The key is in no attribute that is printed, logged or recorded."""

    def __init__(self, base_url: str, api_key_env: str | None, timeout: float) -> None:
        self.base_url, self.api_key_env, self.timeout = checked_endpoint(base_url), api_key_env, timeout
        self._key = ""
        self._sdk: openai.OpenAI | None = None
        self._making = threading.Lock()

    @property
    def sdk(self) -> openai.OpenAI:
        """The `openai` client. It is made when it is first needed, for only then is a key needed. Raises BadInput
        without one."""
        with self._making:
            if self._sdk is None:
                self._key = read_key(self.api_key_env)
                self._sdk = openai.OpenAI(
                    api_key=self._key or "none", base_url=self.base_url, max_retries=0, timeout=self.timeout
                )
            return self._sdk

    def close(self) -> None:
        if self._sdk is not None:
            self._sdk.close()

    def redact(self, text: str) -> str:
        """The text without the key, for servers may repeat what they were sent."""
        return text.replace(self._key, "[key]") if len(self._key) >= 8 else text

    def send(self, request: Request) -> Mapping[str, Any]:
        """One sending. Raises Unanswered, or BadInput where no request of this kind can succeed."""
        # The key travels along: gateways that know the header answer a repeated sending without billing it again.
        headers = {"Idempotency-Key": request.key}
        body = dict(request.body)
        raw = self.call(lambda: self.sdk.post(CHAT, cast_to=httpx2.Response, body=body, options={"headers": headers}))
        try:
            response = json.loads(self.redact(raw.text))
        except ValueError:
            response = None
        if not isinstance(response, dict):
            raise Unanswered("the server's answer is no whole JSON object", retry=True, billed=True)
        return response

    def call(self, what: Callable[[], Result]) -> Result:
        """One call of the `openai` client; its errors become ours. Raises Unanswered and BadInput."""
        try:
            return what()
        except openai.APITimeoutError:
            raise Unanswered(f"no answer within {self.timeout:g} s", retry=True, billed=True) from None
        except openai.APIConnectionError as error:
            never_left = isinstance(error.__cause__, httpx2.ConnectError)
            cause = self.redact(str(error.__cause__ or error)).splitlines() or ["connection lost"]
            raise Unanswered(f"connection: {cause[0]}", retry=True, billed=not never_left) from None
        except openai.APIStatusError as error:
            raise self._refusal(error) from None  # `from None`: the SDK's error holds the request's headers

    def _refusal(self, error: openai.APIStatusError) -> Exception:
        status, body = error.status_code, error.body if isinstance(error.body, Mapping) else {}
        lines = self.redact(str(body.get("message") or body.get("detail") or error.message)).strip().splitlines()
        said = f"{status}: {lines[0][:300] if lines else 'no reason given'}"
        if status in (402, 429) and {body.get("code"), body.get("type")} & set(QUOTA):
            return QuotaExhausted("api_key_env", f"the account has no quota left ({said}); add credit and run again")
        if status == 401:
            held = (
                f"does not accept the key in {self.api_key_env}"
                if self.api_key_env
                else "asks for a key: name its variable"
            )
            return BadInput("api_key_env", f"{self.base_url} {held} ({said})")
        if status in (403, 404):
            refused = NotOffered("model", f"{self.base_url} does not offer this model, or not to this key ({said})")
            refused.said = said
            return refused
        retry = status in RETRIED or status >= 500
        wait = retry_after(error.response.headers) if retry else None
        return Unanswered(said, retry=retry, billed=False, wait=wait, parameter=str(body.get("param") or ""))


def token_limit(body: Mapping[str, Any]) -> int:
    """Tokens that an answer to the request may have; 0 where it names no limit."""
    return int(body.get("max_completion_tokens") or body.get("max_tokens") or 0)


def used_tokens(response: Mapping[str, Any]) -> tuple[int, int]:
    """(prompt, completion) tokens as the server counted them; zeros where it did not."""
    usage = response.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    return int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds the server asks for: `retry-after-ms`, or `Retry-After` in seconds or as a date; None without.

    >>> retry_after({"retry-after": "1.5"})
    1.5
    """
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        if "retry-after" not in headers:
            return None
        value = headers["retry-after"]
        try:
            return max(0.0, float(value))
        except ValueError:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now())
    except (ValueError, TypeError):
        return None
