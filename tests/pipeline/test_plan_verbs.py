"""`tilt plan` and `tilt graph`, as they print."""

import json


def test_plan_counts_what_merging_saves(toy) -> None:
    planned = json.loads(toy.tilt("plan", "--json", "-m", "voice.word=a,b,c").stdout)
    # 3 points × (first, second) and one comparison; `first` is shared
    assert (planned["points"], planned["naive"], planned["unique"]) == (3, 7, 5)


def test_graph_prints_edges(toy) -> None:
    drawn = toy.tilt("graph", "--mermaid").stdout
    assert drawn.startswith("graph LR\n")
    assert drawn.count("-->") == 2
    assert "second ← first" in toy.tilt("graph").stdout


def test_the_toys_estimate_adds_up(toy) -> None:
    out = toy.tilt("plan", "goal=[paid]").stdout
    assert "paid answers: 200 calls, about $2.00" in out  # 200 questions at 0.01
    assert "stages without a price: 1" in toy.tilt("plan", "goal=[paid]", "stages.paid.price=null").stdout
    assert "paid answers" not in toy.tilt("plan").stdout
