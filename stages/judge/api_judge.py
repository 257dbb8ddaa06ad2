"""A language model behind an OpenAI-compatible address as the judge: questions, askings, verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.errors import BadInput
from stages.judge import answers
from stages.judge.answers import Answer, checked_pattern, read_answer
from stages.judge.batch import fetch_batch
from stages.judge.budget import Budget, price_of
from stages.judge.cache import RequestCache
from stages.judge.client import Client, Traffic
from stages.judge.limits import Limits
from stages.judge.preference import seeded_order
from stages.judge.preflight import preflight
from stages.judge.prompts import Template, load_template, render
from stages.judge.request import Reply, Request, checked_endpoint
from stages.judge.verdicts import CANDIDATE_FIRST, Pair, Session, Verdict, orders
from stages.judge.wire import Wire, used_tokens
from stages.reward import judged_text

OWN = {"temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "n", "stream"}
"""Parameters that `extra` may not hold."""


@dataclass
class Question:
    """One pair in one order, and what came of asking."""

    pair: Pair
    order: str
    answer: Answer | None = None
    asked: int = 0
    model: str = ""
    tokens: tuple[int, int] = (0, 0)
    cost: float | None = 0.0
    request: str = ""


@dataclass
class ApiJudge:
    """Compares two responses by asking a model. Raises BadInput for unusable fields, and by its preflight."""

    name: str
    model: str
    """Pinned: a name that moves makes verdicts that nobody can repeat."""
    base_url: str
    mode: str
    """`logprob` (one token, AlpacaEval 2), `structured` (JSON schema, rationale first), `text` (last line)."""
    template: str
    """`alpaca_eval`, `summarisation`, `dialogue`, `hardened`, or a file of your own (`${file:PATH}`)."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; null: the server needs none."""
    max_tokens: int = 1
    """Tokens the judge may write: 1 for logprob, room for a rationale otherwise."""
    token_limit: str = "max_completion_tokens"
    """What this server calls that limit: `max_completion_tokens` or `max_tokens`."""
    temperature: float | None = 0.0
    """null here and below: not sent, for models that refuse the parameter."""
    top_p: float | None = 1.0
    seed: int | None = None
    top_logprobs: int = 5
    extra: dict[str, Any] = field(default_factory=dict)
    """Further parameters of the request, as the server spells them: `{reasoning_effort: low}`."""
    returned_model: str = ""
    """How the server names the model in its answers, where that differs from `model`."""
    pattern: str = answers.PATTERN
    """text: searched for in the answer's last line; its group is A, B or tie."""
    asks: int = 3
    """How often a question is asked at most, while its answers hold no verdict."""
    max_output_chars: int = 40_000
    """A longer response is never sent: outcome `too_long`."""
    max_unreachable: float = 0.02
    """Share of questions that may stay without an answer after all retries; above it the run fails, to be run again."""
    template_seed: int = 0
    """Of the fences around the outputs."""
    prices: dict[str, Any] | None = None
    """`{as_of, models: {name: {input, output, batch}}}` in dollars for a million tokens."""
    runtime: Traffic = field(default_factory=Traffic)

    @property
    def answers_as(self) -> str:
        return self.returned_model or self.model

    def check(self) -> None:
        """Raises BadInput for whatever needs no network to see."""
        checked_endpoint(self.base_url)
        load_template(self.template, self.mode)
        checked_pattern(self.pattern)
        self.runtime.check()
        if self.token_limit not in ("max_tokens", "max_completion_tokens"):
            raise BadInput("token_limit", f"{self.token_limit!r} is neither max_completion_tokens nor max_tokens")
        for name in ("max_tokens", "asks", "max_output_chars"):
            if getattr(self, name) < 1:
                raise BadInput(name, f"{getattr(self, name)} is not a positive number")
        if self.mode == "logprob" and self.top_logprobs < 2:
            raise BadInput("top_logprobs", f"{self.top_logprobs} cannot hold both tokens; the least is 2")
        if clash := sorted(set(self.extra) & (set(self._own_body([], 0)) | OWN)):
            raise BadInput("extra", f"{clash[0]} has a field of its own")
        if self.runtime.max_cost is not None and price_of(self.model, self.prices) is None:
            raise BadInput(
                "runtime.max_cost",
                f"no price is known for {self.model}, so no limit can be kept; add it to `prices` or unset max_cost",
            )

    def body(self, messages: list[dict[str, str]], sample: int) -> dict[str, Any]:
        """The request as it goes over the wire: every sampling parameter is in it."""
        return self._own_body(messages, sample) | dict(self.extra)

    def _own_body(self, messages: list[dict[str, str]], sample: int) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": messages, self.token_limit: self.max_tokens, "n": 1}
        for name in ("temperature", "top_p"):
            if (value := getattr(self, name)) is not None:
                body[name] = value
        if self.seed is not None:
            body["seed"] = self.seed + sample
        if self.mode == "logprob":
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        if self.mode == "structured":
            schema = {"name": "verdict", "strict": True, "schema": answers.SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def decide(self, pairs: Sequence[Pair], order: str, session: Session) -> list[Verdict]:
        """Asks for every pair in every order. Raises BadInput (preflight, key, model), SpendingStopped, Unreachable."""
        self.check()
        template = load_template(self.template, self.mode)
        questions = [Question(pair, o) for pair in pairs for o in orders(order, seeded_order(pair.instruction))]
        for question in questions:
            question.answer = self._without_asking(question.pair)
        price = price_of(self.model, self.prices)
        wire = Wire(self.base_url, self.api_key_env, self.runtime.timeout)
        cache = RequestCache(session.requests)
        try:
            client = Client(
                wire=wire,
                cache=cache,
                traffic=self.runtime,
                price=price,
                budget=Budget(self.runtime.max_cost),
                limits=Limits(self.runtime.rpm, self.runtime.tpm),
            )
            sent = self._ask_all([q for q in questions if q.answer is None], template, client, session, len(questions))
            session.figures |= {
                "asked": len(sent),
                "bought": client.bought,
                "maybe_bought_twice": sum(cache.unanswered(key) + cache.repeated(key) for key in sent),
                "spent": client.budget.spent if price else float("nan"),
            }
        finally:
            wire.close()
            cache.close()
        self._require_reached(questions)
        return [self._verdict(question, price is not None) for question in questions]

    def _without_asking(self, pair: Pair) -> Answer | None:
        if pair.candidate == pair.reference:
            return Answer(answers.IDENTICAL, 1.5)
        for whose, text in (("candidate", pair.candidate), ("reference", pair.reference)):
            if len(judged_text(pair.prompt, text)) > self.max_output_chars:
                problem = f"the {whose}'s response has {len(text)} characters; max_output_chars={self.max_output_chars}"
                return Answer("too_long", problem=problem)
        return None

    def _ask_all(
        self, open_questions: list[Question], template: Template, client: Client, session: Session, total: int
    ) -> set[str]:
        """Asks until every question has a verdict or has been asked `asks` times; the keys of all that was asked."""
        keys: set[str] = set()
        checked = False
        for sample in range(self.asks):
            if not open_questions:
                break
            requests = [self._request(question, template, client, sample) for question in open_questions]
            keys |= {request.key for request in requests}
            recorded = client.recorded(requests)
            if not checked and (missing := [request for request in requests if request.key not in recorded]):
                session.progress(total - len(open_questions), total, f"{self.name}: preflight")
                # Else every try to go on without a larger max_cost would still buy a preflight.
                client.budget.require(2 * client.worst_cost(missing[0], batch=self.runtime.batch))
                preflight(self, client)
                checked = True
            settled = total - len(open_questions)
            fetch = fetch_batch if self.runtime.batch else Client.fetch
            note = self.name if sample == 0 else f"{self.name}: asking again ({sample + 1} of {self.asks})"
            replies = fetch(
                client, requests, lambda done, settled=settled, note=note: session.progress(settled + done, total, note)
            )
            for question, request in zip(open_questions, requests, strict=True):
                self._take(question, replies[request.key], client)
            open_questions = [q for q in open_questions if q.answer is None or q.answer.outcome in answers.ASK_AGAIN]
        return keys

    def _request(self, question: Question, template: Template, client: Client, sample: int) -> Request:
        pair = question.pair
        candidate, reference = judged_text(pair.prompt, pair.candidate), judged_text(pair.prompt, pair.reference)
        first, second = (candidate, reference) if question.order == CANDIDATE_FIRST else (reference, candidate)
        messages = render(
            template, self.mode, instruction=pair.instruction, first=first, second=second, seed=self.template_seed
        )
        return Request(client.wire.base_url, self.body(messages, sample), sample)

    def _take(self, question: Question, reply: Reply, client: Client) -> None:
        question.asked += 1
        if reply.response is None:
            if question.answer is None:  # an earlier answer's outcome says more than a later failure to ask again
                question.answer = Answer(reply.failure, problem=reply.problem)
            else:
                question.answer = Answer(reply.failure, problem=f"{reply.problem}; before: {question.answer.outcome}")
            return
        question.answer = read_answer(
            reply.response,
            self.mode,
            candidate_first=question.order == CANDIDATE_FIRST,
            model=self.answers_as,
            pattern=self.pattern,
        )
        question.model, question.request = str(reply.response.get("model")), reply.key
        prompt, completion = used_tokens(reply.response)
        question.tokens = (question.tokens[0] + prompt, question.tokens[1] + completion)
        question.cost = (question.cost or 0.0) + client.cost(reply.key, reply.response)

    def _require_reached(self, questions: Sequence[Question]) -> None:
        lost = [q.answer for q in questions if q.answer is not None and q.answer.outcome == "unreachable"]
        if len(lost) > self.max_unreachable * len(questions):
            raise Unreachable(
                "base_url",
                f"{len(lost)} of {len(questions)} questions got no answer (the first: {lost[0].problem}); what was "
                "answered is recorded: run again, or raise max_unreachable",
            )

    def _verdict(self, question: Question, priced: bool) -> Verdict:
        answer, pair = question.answer, question.pair
        assert answer is not None
        return Verdict(
            prompt_id=pair.prompt.id,
            part=pair.prompt.part,
            sample=pair.sample,
            judge=self.name,
            candidate=pair.candidate_method,
            reference=pair.reference_method,
            canary=pair.canary,
            order=question.order,
            preference=answer.preference,
            outcome=answer.outcome,
            problem=answer.problem,
            candidate_chars=len(judged_text(pair.prompt, pair.candidate)),
            reference_chars=len(judged_text(pair.prompt, pair.reference)),
            answer=answer.text,
            asked=question.asked,
            model=question.model,
            prompt_tokens=question.tokens[0],
            completion_tokens=question.tokens[1],
            cost=question.cost if priced else None,
            request=question.request,
        )


class Unreachable(BadInput):
    """Too many questions stayed without an answer; nothing is published, everything answered is recorded."""
