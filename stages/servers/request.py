"""One request to a model server, and the reply to it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from stages.errors import BadInput

CHAT = "/chat/completions"


@dataclass(frozen=True)
class Request:
    """A chat completion. `body` is what goes over the wire: model, messages, every sampling parameter, schema."""

    endpoint: str
    """The server's base URL, as `checked_endpoint` writes it."""
    body: Mapping[str, Any]
    sample: int = 0
    """0 for the first time a question is asked; asked again it is 1, 2, …, so that the recorded answer is not found."""

    @cached_property
    def key(self) -> str:
        """sha256 (hex) over {endpoint, body, sample}. The recorded answer is found by it."""
        asked = {"endpoint": self.endpoint + CHAT, "body": self.body, "sample": self.sample}
        text = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Reply:
    """The response to a request, or the failure of this one request."""

    key: str
    response: Mapping[str, Any] | None = None
    """The raw chat completion."""
    failure: str = ""
    """Empty, `bad_request` (the server refuses this item) or `unreachable` (retries are used up)."""
    problem: str = ""
    """One line about the failure."""
    parameter: str = ""
    """The parameter that the server says it refused."""


def checked_endpoint(base_url: str) -> str:
    """The base URL without a trailing slash. Raises BadInput where it is none, or carries a secret.

    >>> checked_endpoint("http://127.0.0.1:8000/v1/")
    'http://127.0.0.1:8000/v1'
    """
    try:
        parts = urlsplit(base_url)
        host = (parts.hostname or "").encode("idna")
        written = base_url.isprintable() and " " not in base_url
        known = parts.scheme in ("http", "https") and host and parts.port != 0 and written
    except ValueError:  # a port that is none, brackets that do not match, a host that no name server knows
        raise BadInput("base_url", "is no http(s) address such as http://127.0.0.1:8000/v1") from None
    if not known:
        raise BadInput("base_url", f"{base_url!r} is no http(s) address such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        # The address is recorded with every answer, so it may hold nothing secret.
        raise BadInput(
            "base_url", "user names, passwords and ?queries do not belong here; name a variable in api_key_env"
        )
    return base_url.rstrip("/")
