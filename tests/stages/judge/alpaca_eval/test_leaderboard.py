"""Results go to AlpacaEval's files and come back, by the commands in the module's docstring."""

import json
from pathlib import Path

import pytest

from stages import records
from stages.judge.alpaca_eval.leaderboard import main
from stages.judge.reward_judge import RewardJudge
from stages.records import Generation, Verdict
from tests.stages.judge.judging import api_judge, longer_wins, write_methods
from tests.stages.servers.loopback import Loopback


def test_verdicts_become_annotations_and_outputs_come_back(tmp_path: Path, run_stage, capsys) -> None:
    payloads = write_methods(tmp_path, ["a long answer", "no"], ["short", "a long answer"])
    with Loopback(longer_wins) as server:
        verdicts, _ = run_stage(payloads, {"main": api_judge(server.base_url)}, canary=2)
    records.write(tmp_path / "judged" / "verdicts.parquet", Verdict, verdicts)
    candidate, reference, prompts = (str(payloads[n]) for n in ("generations", "reference_generations", "prompts"))

    to = tmp_path / "annotations.json"
    assert main(["annotations", str(tmp_path / "judged"), candidate, reference, prompts, "--to", str(to)]) == 0
    rows = json.loads(to.read_text())
    # Longer wins with 0.9: the first prompt's candidate, the second one's reference. The null model stays at home.
    assert [(r["output_1"], r["output_2"], round(r["preference"], 6)) for r in rows] == [
        ("short", "a long answer", 1.9), ("a long answer", "no", 1.1),
    ]  # fmt: skip
    assert {(r["generator_1"], r["generator_2"]) for r in rows} == {("reference", "candidate")}

    outputs, back = tmp_path / "model_outputs.json", tmp_path / "back"
    assert main(["outputs", candidate, prompts, "--name", "mine", "--to", str(outputs)]) == 0
    assert main(["import", str(outputs), "--to", str(back)]) == 0
    assert "2 rows" in capsys.readouterr().out
    imported = records.read(back / "generations.parquet", Generation)
    assert [(g.text, g.method) for g in imported] == [("a long answer", "mine"), ("no", "mine")]
    # What was imported is judged like any other method, here against itself.
    same = {"generations": back, "reference_generations": back, "prompts": back}
    found, metrics = run_stage(same, {"main": RewardJudge(reward=Never())})
    assert [v.outcome for v in found] == ["identical", "identical"]
    assert metrics["win_rate"] == 50


class Never:
    def score(self, prompts, responses):
        return [0.0 for _ in responses]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["import", "missing.json", "--to", "x"], "leaderboard: file: missing.json does not exist\n"),
        (
            ["outputs", "{candidate}", "{prompts}", "--name", "m", "--part", "final", "--to", "x"],
            "leaderboard: generations: {candidate} holds no response to a prompt of part 'final'\n",
        ),
    ],
)
def test_what_cannot_be_exported_is_one_line(tmp_path: Path, capsys, arguments: list[str], line: str) -> None:
    payloads = write_methods(tmp_path, ["a"], ["b"])
    known = {"candidate": str(payloads["generations"]), "prompts": str(payloads["prompts"])}
    assert main([word.format(**known) for word in arguments]) == 2
    assert capsys.readouterr().err == line.format(**known)
