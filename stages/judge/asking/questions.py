"""Asks a model about every pair in every order, and again where its answer holds no verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.errors import BadInput
from stages.judge.asking.answers import Answer, read_answer
from stages.judge.asking.judge_model import JudgeModel
from stages.judge.asking.preflight import preflight
from stages.judge.asking.template import load_template, render
from stages.judge.verdicts.order import CANDIDATE_FIRST, orders
from stages.judge.verdicts.outcomes import ASK_AGAIN, IDENTICAL
from stages.judge.verdicts.pair_judge import Session
from stages.judge.verdicts.pairs import Pair
from stages.records import Verdict
from stages.reward import judged_text
from stages.servers.batch import fetch_batch
from stages.servers.budget import Budget
from stages.servers.client import Client
from stages.servers.ledger import Ledger
from stages.servers.limits import Limits
from stages.servers.prices import price_of
from stages.servers.request import Reply, Request
from stages.servers.request_cache import RequestCache
from stages.servers.wire import Wire, used_tokens


class Unreachable(BadInput):
    """Too many questions have no answer. Nothing is published, but all answers that came are recorded."""


@dataclass
class Question:
    """One pair in one order, and what the judge said about it."""

    pair: Pair
    order: str
    answer: Answer | None = None
    asked: int = 0
    model: str = ""
    tokens: tuple[int, int] = (0, 0)
    cost: float | None = 0.0
    request: str = ""

    @property
    def settled(self) -> bool:
        """Whether the question need not be asked (again)."""
        return self.answer is not None and self.answer.outcome not in ASK_AGAIN


class Asking:
    """All questions to one judge in one run of the stage."""

    def __init__(self, judge: JudgeModel, session: Session) -> None:
        self.judge, self.session = judge, session
        self.template = load_template(judge.template, judge.mode)
        self.price = price_of(judge.model, judge.prices)

    def decide(self, pairs: Sequence[Pair], order: str) -> list[Verdict]:
        """One verdict a pair and order. Raises as `ApiJudge.decide` does."""
        judge, traffic = self.judge, self.judge.runtime
        questions = [Question(pair, o) for pair in pairs for o in orders(order, pair.instruction)]
        for question in questions:
            question.answer = self._without_asking(question.pair)
        wire = Wire(judge.base_url, judge.api_key_env, traffic.timeout)
        cache = RequestCache(self.session.requests)
        ledger = None
        try:
            if traffic.account and self.price is not None:
                ledger = Ledger(self.session.requests, traffic.account, traffic.max_cost_run)
            client = Client(
                wire=wire,
                cache=cache,
                traffic=traffic,
                price=self.price,
                budget=Budget(traffic.max_cost, ledger),
                limits=Limits(traffic.rpm, traffic.tpm),
            )
            sent = self._ask_all(questions, client)
            self.session.figures |= {
                "asked": len(sent),
                "bought": client.bought,
                "maybe_bought_twice": sum(cache.unanswered(key) + cache.repeated(key) for key in sent),
                "spent": client.budget.spent if self.price else float("nan"),
            }
        finally:
            wire.close()
            cache.close()
            if ledger is not None:
                ledger.close()
        self._require_reached(questions)
        return [self._verdict(question) for question in questions]

    def _without_asking(self, pair: Pair) -> Answer | None:
        if pair.candidate == pair.reference:
            return Answer(IDENTICAL, 1.5)
        most = self.judge.max_output_chars
        for whose, text in (("candidate", pair.candidate), ("reference", pair.reference)):
            if (length := len(judged_text(pair.prompt, text))) > most:
                problem = f"the {whose}'s response has {length} characters; max_output_chars={most}"
                return Answer("too_long", problem=problem)
        return None

    def _ask_all(self, questions: Sequence[Question], client: Client) -> set[str]:
        """Asks until every question has a verdict or was asked `asks` times. Returns the keys of all its requests."""
        name, total, batch = self.judge.name, len(questions), self.judge.runtime.batch
        waiting = [question for question in questions if question.answer is None]
        keys: set[str] = set()
        checked = False
        for sample in range(self.judge.asks):
            if not waiting:
                break
            requests = [self._request(question, client, sample) for question in waiting]
            keys |= {request.key for request in requests}
            recorded = client.recorded(requests)
            if not checked and (missing := [request for request in requests if request.key not in recorded]):
                self.session.progress(total - len(waiting), total, f"{name}: preflight")
                # Without this, each run that finds no money left would still pay for a preflight.
                client.budget.require(2 * client.worst_cost(missing[0], batch=batch))
                preflight(self.judge, client)
                checked = True
            settled = total - len(waiting)
            note = name if sample == 0 else f"{name}: asking again ({sample + 1} of {self.judge.asks})"

            def progress(done: int, settled: int = settled, note: str = note) -> None:
                self.session.progress(settled + done, total, note)

            replies = (fetch_batch if batch else Client.fetch)(client, requests, progress)
            for question, request in zip(waiting, requests, strict=True):
                self._take(question, replies[request.key], client)
            waiting = [question for question in waiting if not question.settled]
        return keys

    def _request(self, question: Question, client: Client, sample: int) -> Request:
        judge, pair = self.judge, question.pair
        candidate, reference = judged_text(pair.prompt, pair.candidate), judged_text(pair.prompt, pair.reference)
        first, second = (candidate, reference) if question.order == CANDIDATE_FIRST else (reference, candidate)
        messages = render(
            self.template,
            judge.mode,
            instruction=pair.instruction,
            first=first,
            second=second,
            seed=judge.template_seed,
        )
        return Request(client.wire.base_url, judge.body(messages, sample), sample)

    def _take(self, question: Question, reply: Reply, client: Client) -> None:
        question.asked += 1
        if reply.response is None:
            before = f"; before: {question.answer.outcome}" if question.answer else ""
            question.answer = Answer(reply.failure, problem=reply.problem + before)
            return
        question.answer = read_answer(
            reply.response,
            self.judge.mode,
            candidate_first=question.order == CANDIDATE_FIRST,
            model=self.judge.answers_as,
            pattern=self.judge.pattern,
        )
        question.model, question.request = str(reply.response.get("model")), reply.key
        prompt, completion = used_tokens(reply.response)
        question.tokens = (question.tokens[0] + prompt, question.tokens[1] + completion)
        question.cost = (question.cost or 0.0) + client.cost(reply.key, reply.response)

    def _require_reached(self, questions: Sequence[Question]) -> None:
        lost = [q.answer for q in questions if q.answer is not None and q.answer.outcome == "unreachable"]
        if len(lost) > self.judge.max_unreachable * len(questions):
            raise Unreachable(
                "base_url",
                f"{len(lost)} of {len(questions)} questions got no answer (the first: {lost[0].problem}); what was "
                "answered is recorded: run again, or raise max_unreachable",
            )

    def _verdict(self, question: Question) -> Verdict:
        answer, pair = question.answer, question.pair
        assert answer is not None
        return Verdict(
            prompt_id=pair.prompt.id,
            part=pair.prompt.part,
            sample=pair.sample,
            judge=self.judge.name,
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
            cost=question.cost if self.price is not None else None,
            request=question.request,
        )
