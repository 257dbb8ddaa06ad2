"""One question before all others: does this server do what the judge's configuration needs? If not, the run ends here.

It checks the address and the key, the model's name as the server gives it, the name of the token limit and that the
server keeps it, temperature and the other sampling parameters, log-probabilities, and the JSON schema. It never
switches to another setting by itself, for a judge that answers in another way is another judge.
"""

import json
import time

from stages.errors import BadInput
from stages.judge.asking.answers import first_choice, top_logprobs, written
from stages.judge.asking.judge_model import JudgeModel
from stages.judge.asking.template import load_template, render
from stages.servers.client import Client
from stages.servers.request import Reply, Request
from stages.servers.wire import token_limit, used_tokens

PARAMETERS = {
    "max_tokens": ("token_limit", "set token_limit=max_completion_tokens"),
    "max_completion_tokens": ("token_limit", "set token_limit=max_tokens"),
    "temperature": ("temperature", "set temperature=null: the server's own is used, and verdicts vary more"),
    "top_p": ("top_p", "set top_p=null"),
    "seed": ("seed", "set seed=null"),
    "top_logprobs": ("mode", "choose a model that returns log-probabilities, or mode=structured or mode=text"),
    "logprobs": ("mode", "choose a model that returns log-probabilities, or mode=structured or mode=text"),
    "response_format": ("mode", "choose a model that takes a JSON schema, or mode=text"),
    "model": ("model", "name a model that the server has"),
}
"""Parameter that a server may refuse → the field that it comes from, and the way out."""
ATTEMPTS = 3


def preflight(judge: JudgeModel, client: Client) -> None:
    """Raises BadInput naming the judge's field, with the way out, where the server cannot be this judge."""
    messages = render(
        load_template(judge.template, judge.mode),
        judge.mode,
        instruction="Name the capital of France.",
        first="The capital of France is Paris.",
        second="Bananas are yellow.",
        seed=judge.template_seed,
    )
    # A key of its own, so that no recorded answer is found: the server may have changed since.
    request = Request(client.wire.base_url, judge.body(messages, 0), sample=-time.time_ns())
    reply = client.buy(request, attempts=min(ATTEMPTS, client.traffic.attempts))
    if reply.failure == "unreachable":
        raise BadInput("base_url", f"no usable answer from {client.wire.base_url} ({reply.problem})")
    if reply.failure:
        raise _refused(reply)
    _check_answer(judge, client, reply)


def _refused(reply: Reply) -> BadInput:
    named = reply.parameter.split(".")[0].split("[")[0]
    if named not in PARAMETERS:
        # Longest first: max_completion_tokens before max_tokens, top_logprobs before logprobs.
        quoted = [p for p in sorted(PARAMETERS, key=len, reverse=True) if p in reply.problem]
        if not quoted:
            return BadInput("base_url", f"the server refuses the first request ({reply.problem})")
        named = quoted[0]
        if "max_tokens" in reply.problem and "max_completion_tokens" in reply.problem:
            # "max_tokens is not supported, use max_completion_tokens": the first one named is at fault.
            named = min(("max_tokens", "max_completion_tokens"), key=lambda p: _word_at(reply.problem, p))
    field, way_out = PARAMETERS[named]
    return BadInput(field, f"the server refuses {named} ({reply.problem}); {way_out}")


def _word_at(text: str, word: str) -> int:
    return text.index(word)


def _check_answer(judge: JudgeModel, client: Client, reply: Reply) -> None:
    assert reply.response is not None
    response, server = reply.response, client.wire.base_url
    if (returned := response.get("model")) != judge.answers_as:
        raise BadInput(
            "model",
            f"{server} answers as {returned!r}, not as {judge.answers_as!r}; pin model={returned}, or set "
            "returned_model if the server names this very model so",
        )
    choice, message = first_choice(response)
    if choice is None:
        raise BadInput("model", f"{judge.model} at {server} answers without choices; it is no chat model")
    limit, (_, completion) = token_limit(client_body := judge.body([], 0)), used_tokens(response)
    if completion > limit:
        name = next(n for n in ("max_tokens", "max_completion_tokens") if n in client_body)
        raise BadInput(
            "token_limit", f"{server} ignores {name}={limit} (it wrote {completion} tokens); set the other name"
        )
    if judge.mode == "logprob" and len(top_logprobs(choice)) < 2:
        raise BadInput(
            "mode",
            f"logprob needs log-probabilities and {judge.model} at {server} returns none; choose another model, or "
            "mode=structured or mode=text",
        )
    text = written(message)
    if judge.mode == "structured" and not _keeps_schema(text):
        raise BadInput(
            "mode",
            f"structured needs a JSON schema and {judge.model} at {server} ignores it (it wrote {text[:60]!r}); choose "
            "another model, a larger max_tokens, or mode=text",
        )
    if judge.mode == "text" and not text.strip():
        raise BadInput("model", f"{judge.model} at {server} writes nothing where a verdict in words is asked for")


def _keeps_schema(text: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and list(found) == ["rationale", "verdict"] and found["verdict"] in ("A", "B", "tie")
