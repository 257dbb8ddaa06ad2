"""What a user gets wrong, and the one line that says so."""

from pathlib import Path
from typing import Any

import pytest

from stages import records
from stages.errors import BadInput
from stages.judge.judge import Judge
from stages.judge.reward_judge import RewardJudge
from stages.judge.seat import Seat
from stages.records import Generation
from tests.stages.judge.judging import api_judge, generation, longer_wins, shown, write_methods
from tests.stages.servers.loopback import Fault, Loopback
from tests.stages.servers.sending import quick


def refusal(run_stage: Any, payloads: dict[str, Path], judge: Any) -> str:
    with pytest.raises(BadInput) as refused:
        run_stage(payloads, {"main": judge})
    return str(refused.value)


def test_no_api_key(tmp_path: Path, run_stage, monkeypatch) -> None:
    payloads = write_methods(tmp_path, ["aa"], ["b"])
    with Loopback(longer_wins) as server:
        judge = api_judge(server.base_url, api_key_env="NO_SUCH_KEY")
        line = (
            "judges.main.api_key_env: the environment has no NO_SUCH_KEY; export it, or name the variable that holds "
            "the key"
        )
        assert refusal(run_stage, payloads, judge) == line
        monkeypatch.setenv("NO_SUCH_KEY", "  ")  # set, and empty: the same
        assert refusal(run_stage, payloads, judge) == line
        assert not server.arrivals


def test_a_server_that_wants_a_key_where_none_is_named(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, ["aa"], ["b"])
    fault = Fault("status", 401, body={"error": {"message": "You didn't provide an API key."}})
    with Loopback(lambda body, n: fault) as server:
        assert refusal(run_stage, payloads, api_judge(server.base_url)) == (
            f"judges.main.api_key_env: {server.base_url} asks for a key: name its variable "
            "(401: You didn't provide an API key.)"
        )


def test_a_model_that_does_not_exist(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, ["aa"] * 9, ["b"] * 9)
    fault = Fault("status", 404, body={"error": {"message": "The model `gpt-5o` does not exist", "code": "x"}})
    with Loopback(lambda body, n: fault) as server:
        assert refusal(run_stage, payloads, api_judge(server.base_url, model="gpt-5o")) == (
            f"judges.main.model: {server.base_url} does not offer this model, or not to this key "
            "(404: The model `gpt-5o` does not exist)"
        )
        assert len(server.arrivals) == 1  # the preflight alone


@pytest.mark.parametrize("limit", ["max_cost", "max_cost_run"])
def test_an_unknown_price_allows_no_limit(tmp_path: Path, run_stage, limit: str) -> None:
    payloads = write_methods(tmp_path, ["aa"], ["b"])
    judge = api_judge("http://127.0.0.1:9/v1", model="new-model", runtime=quick(account="study", **{limit: 1.0}))
    assert refusal(run_stage, payloads, judge) == (
        f"judges.main.runtime.{limit}: no price is known for new-model, so no limit can be kept; add it to `prices` or "
        f"unset {limit}"
    )


def test_an_unknown_price_without_a_limit_is_no_cost_rather_than_a_cost_of_nothing(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, ["aa"], ["b"])
    with Loopback(longer_wins) as server:
        verdicts, metrics = run_stage(payloads, {"main": api_judge(server.base_url, prices=None)})
        _, priced = run_stage(payloads, {"main": api_judge(server.base_url)})
    assert [v.cost for v in verdicts] == [None, None]
    assert "cost" not in metrics
    assert "requests/spent" not in metrics
    assert priced["cost"] > 0


def test_a_run_wide_limit_needs_an_account(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, ["aa"], ["b"])
    judge = api_judge("http://127.0.0.1:9/v1", runtime=quick(max_cost_run=1.0))
    assert refusal(run_stage, payloads, judge) == (
        "judges.main.runtime.account: is empty; name the account that max_cost_run is a limit of"
    )


def test_empty_identical_and_endless_outputs(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(
        tmp_path, ["", "same", "", "x" * 100_000, "short"], ["words", "same", "", "y", "z" * 100_000]
    )
    asked = []

    def respond(body: dict[str, Any], n: int) -> Any:
        asked.append(shown(body))
        return longer_wins(body, n)

    with Loopback(respond) as server:
        verdicts, metrics = run_stage(payloads, {"main": api_judge(server.base_url)}, order="as_is")
    assert [(v.prompt_id, v.outcome, v.preference, v.problem) for v in verdicts] == [
        ("p0000", "verdict", pytest.approx(1.1), ""),  # an empty response is shown and loses
        ("p0001", "identical", 1.5, ""),
        ("p0002", "identical", 1.5, ""),
        ("p0003", "too_long", None, "the candidate's response has 100000 characters; max_output_chars=40000"),
        ("p0004", "too_long", None, "the reference's response has 100000 characters; max_output_chars=40000"),
    ]
    assert asked[1:] == [("words", "")]  # after the preflight: one question, whole, in its order
    assert (metrics["failures"], metrics["failures/too_long"]) == (2, 2)


def test_an_output_of_100_000_characters_is_sent_whole_where_that_is_allowed(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, ["x" * 100_000], ["y"])
    with Loopback(longer_wins) as server:
        verdicts, _ = run_stage(payloads, {"main": api_judge(server.base_url, max_output_chars=100_000)})
    assert [v.preference for v in verdicts] == pytest.approx([1.9, 1.9])
    assert {v.candidate_chars for v in verdicts} == {100_000}


@pytest.mark.parametrize(
    ("answered", "line"),
    [
        (
            ["p0000", "p0002"],
            "reference_generations: the reference has no response (of that sample) to 'p0001'; judge two methods on "
            "the same prompts and samples",
        ),
        (
            [],
            "reference_generations: the reference has no response (of that sample) to 'p0000', 'p0001', 'p0002', "
            "'p0003', 'p0004' and 2 more; judge two methods on the same prompts and samples",
        ),
    ],
)
def test_prompts_that_only_one_method_answers_are_named(
    tmp_path: Path, run_stage, answered: list[str], line: str
) -> None:
    n = 3 if answered else 7
    payloads = write_methods(tmp_path, ["x"] * n, ["y"] * n)
    rows = [generation(i, "y", "reference") for i in answered]
    records.write(tmp_path / "reference" / "generations.parquet", Generation, rows)
    assert refusal(run_stage, payloads, api_judge("http://127.0.0.1:9/v1")) == line
    turned = {
        **payloads,
        "generations": payloads["reference_generations"],
        "reference_generations": payloads["generations"],
    }
    if answered:
        said = refusal(run_stage, turned, api_judge("http://127.0.0.1:9/v1"))
        assert said == line.replace("the reference has", "the candidate has")
    else:
        said = refusal(run_stage, turned, api_judge("http://127.0.0.1:9/v1"))
        assert said == f"generations: {tmp_path / 'reference'} holds no generations"


def test_answers_to_prompts_that_nobody_asked(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, ["x"], ["y"])
    for method in ("candidate", "reference"):
        rows = [generation("stray", "z", method)]
        records.write(tmp_path / method / "generations.parquet", Generation, rows)
    assert refusal(run_stage, payloads, api_judge("http://127.0.0.1:9/v1")) == (
        "prompts: no prompt has the id 'stray' that both methods answer"
    )


NAN, HUGE = float("nan"), 10**400
WRONG: list[tuple[str, list[Any]]] = [
    ("name", [None, 5, "", " ", "two\nlines", "\ud800"]),
    ("model", [None, 5, NAN, [], "", "\ud800"]),
    ("base_url", [None, 5, [], "", "http://[::1", "http://host:x/v1", "http://host:99999/v1", "http://h\0/v1"]),
    ("base_url", ["http://" + "a" * 300 + "/v1", "http://a b/v1"]),
    ("mode", [None, 5, []]),
    ("template", [None, 5, {}, "", "~nobody/x", "a" * 5000, "a\0b"]),
    ("api_key_env", [5, [], "", "two\nlines", "sk-secret-0123", "\ud800"]),
    ("max_tokens", [None, "x", 1.5, NAN, HUGE, True, []]),
    ("token_limit", [None, 5, []]),
    ("temperature", ["x", NAN, float("inf"), HUGE, True, {}]),
    ("top_p", ["x", NAN, []]),
    ("seed", ["x", 1.5, NAN, {}]),
    ("top_logprobs", [None, "x", NAN, []]),
    ("extra", [None, 5, "x", [1], {1: 2}, {"a": NAN}, {"a": {1: 2, "b": 3}}, {"a": object()}]),
    ("returned_model", [None, 5]),
    ("template_seed", [None, "x"]),
    ("pattern", [None, 5, [], "("]),
    ("asks", [None, "x", 1.5, NAN, 0]),
    ("max_output_chars", [None, "x", 0]),
    ("max_unreachable", [None, "x", NAN, -1, 2]),
    ("prices", [5, "x", [1], {"models": 5}, {"models": [1]}]),
    ("runtime", [None, 5, {}]),
]
TRAFFIC: list[tuple[str, list[Any]]] = [
    ("concurrency", [None, "x", 1.5, NAN, 0]),
    ("rpm", ["x", 1.5, 0]),
    ("tpm", ["x", []]),
    ("max_cost", ["x", -1, NAN, HUGE]),
    ("max_cost_run", ["x", []]),
    ("account", [None, []]),
    ("timeout", [None, "x", NAN, float("inf")]),
    ("attempts", [None, 1.5]),
    ("longest_wait", [None, -1]),
    ("batch", [None, "x", 5]),
    ("poll", [None, []]),
]


def line_of(judges: Any, **fields: Any) -> str:
    """The one line by which a stage refuses its fields, before it has read a payload."""
    missing = {"generations": "none", "reference_generations": "none", "prompts": "none"}
    with pytest.raises(BadInput) as refused:
        Judge(**missing | {"judges": judges} | fields).run(Path("none"))  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)  # a key where its variable's name belongs
    return str(refused.value)


@pytest.mark.parametrize(("field", "values"), WRONG, ids=[field for field, _ in WRONG])
def test_whatever_a_field_of_a_judge_holds_it_is_refused_in_one_line(field: str, values: list[Any]) -> None:
    for value in values:
        judge = api_judge("http://127.0.0.1:9/v1")
        setattr(judge, field, value)
        assert line_of({"main": judge}).startswith(f"judges.main.{field}"), value


@pytest.mark.parametrize(("field", "values"), TRAFFIC, ids=[field for field, _ in TRAFFIC])
def test_so_it_is_for_how_requests_travel(field: str, values: list[Any]) -> None:
    for value in values:
        judge = api_judge("http://127.0.0.1:9/v1", runtime=quick(**{field: value}))
        assert line_of({"main": judge}).startswith(f"judges.main.runtime.{field}: "), value


def test_a_run_may_be_named_by_a_number() -> None:
    traffic = quick(account=2026)  # as `name=2026` on the command line gives it
    traffic.check()
    assert traffic.account == "2026"


class Zero:
    def score(self, prompts: Any, responses: Any) -> list[float]:
        return [0.0 for _ in responses]


@pytest.mark.parametrize(
    ("judges", "fields", "line"),
    [
        (None, {}, "judges: null is not a mapping with texts as keys"),
        ([], {}, "judges: [] is not a mapping with texts as keys"),
        ({}, {}, "judges: no judge is named; give at least one, such as judges.main"),
        ({"main": None}, {}, "judges: no judge is named; give at least one, such as judges.main"),
        ({"main": "reward"}, {}, "judges.main: str is no judge: it has no decide(pairs, order, session)"),
        ({"main": RewardJudge(None)}, {}, "judges.main.reward: NoneType is no reward: it has no score("),
        ({"main": RewardJudge(Zero(), tie="x")}, {}, "judges.main.tie: 'x' is not a number"),  # type: ignore[arg-type]
        ({"main": RewardJudge(Zero(), tie=HUGE)}, {}, "judges.main.tie: 1000"),
        ({"main": Seat(None)}, {}, "judges.main.judge: NoneType is no judge"),
        ({"main": Seat(RewardJudge(Zero()), canary="x")}, {}, "judges.main.canary: 'x' is not a whole number"),  # type: ignore[arg-type]
        (
            {"main": RewardJudge(Zero()), "second": Seat(RewardJudge(Zero()))},
            {},
            "judges.second.judge.name: judges.main is named 'reward' too; give another",
        ),
        ({"main": RewardJudge(Zero())}, {"parts": "test"}, "parts: 'test' is not a list of texts"),
        ({"main": RewardJudge(Zero())}, {"parts": [1]}, "parts: [1] is not a list of texts"),
        ({"main": RewardJudge(Zero())}, {"order": []}, "order: [] is not text"),
        ({"main": RewardJudge(Zero())}, {"canary": None}, "canary: null is not a whole number"),
        ({"main": RewardJudge(Zero())}, {"canary_text": 5}, "canary_text: 5 is not text"),
        ({"main": RewardJudge(Zero())}, {"generations": None}, "generations: null is not the path of a folder"),
        ({"main": RewardJudge(Zero())}, {}, "generations: none/generations.parquet cannot be read: "),
    ],
)
def test_so_it_is_for_the_stage_and_the_judges_without_a_network(judges: Any, fields: Any, line: str) -> None:
    assert line_of(judges, **fields).startswith(line)


def test_a_template_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe[user]")
    judge = api_judge("http://127.0.0.1:9/v1", template=str(tmp_path / "binary"))
    assert line_of({"main": judge}) == f"judges.main.template: {tmp_path / 'binary'} is no text in UTF-8"


def test_a_key_that_cannot_be_sent_is_not_shown(tmp_path: Path, run_stage, monkeypatch) -> None:
    payloads = write_methods(tmp_path, ["aa"], ["b"])
    with Loopback(longer_wins) as server:
        for key in ("sk-planted\n0123456789", "sk-plantéd-0123456789"):
            monkeypatch.setenv("JUDGE_KEY", key)
            line = refusal(run_stage, payloads, api_judge(server.base_url, api_key_env="JUDGE_KEY"))
            assert line.startswith("judges.main.api_key_env: what JUDGE_KEY holds is no key")
            assert "0123456789" not in line
        assert not server.arrivals


def test_no_judge_is_paid_before_all_have_been_looked_at(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, ["aa"], ["b"])
    with Loopback(longer_wins) as server:
        judges = {"main": api_judge(server.base_url), "second": api_judge(server.base_url, name="other", asks=0)}
        with pytest.raises(BadInput, match=r"judges\.second\.asks: 0 is not a positive number"):
            run_stage(payloads, judges)
        assert not server.arrivals
