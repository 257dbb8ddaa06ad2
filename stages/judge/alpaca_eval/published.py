"""AlpacaEval's published figures, recomputed from its stored verdicts, to check the statistics of this project.

Reads a folder with items.csv, annotations.csv, expected.csv, gamed_baselines_surrogate.csv and, where they are there,
second_judge_cot.csv; prints one table. Twenty seconds on one core.

    python -m stages.judge.alpaca_eval.published FOLDER
"""

import argparse
import csv
import time
from collections.abc import Hashable, Iterable
from pathlib import Path

import numpy as np
from scipy.special import expit

from stages.judge.statistics.agreement import compare_judges
from stages.judge.statistics.prompt_table import PromptTable, join
from stages.judge.verdicts.order import seeded_order
from stages.judge.verdicts.preference import preference_from_logprobs
from stages.judge.winrate import WinRate, length_controlled, win_rate_difference

Row = dict[str, str]


class Published:
    """The stored verdicts and what was published about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items = self.table("items.csv")
        self.annotations = self.table("annotations.csv")
        self.expected = {row["model"]: row for row in self.table("expected.csv")}
        self.gamed = self.table("gamed_baselines_surrogate.csv")

    def table(self, name: str) -> list[Row]:
        with (self.folder / name).open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def joined(self, model: str, *, by_position: bool = False) -> PromptTable:
        """A model's verdicts, joined by instruction; `by_position` gives the i-th row the i-th instruction's
        difficulty, as AlpacaEval's own code does."""
        rows = sorted((row for row in self.annotations if row["model"] == model), key=lambda row: int(row["row"]))
        verdicts, items = [], []
        for position, row in enumerate(rows):
            item = self.items[int(row["index"])]
            own = self.items[position] if by_position else item
            instruction = item["instruction"]
            verdicts.append({"instruction": instruction, "preference": row["preference"], "len_model": row["len_2"]})
            difficulty = own["instruction_difficulty"]
            items.append({"instruction": instruction, "len_reference": item["len_1"], "difficulty": difficulty})
        return join(verdicts, items, complete=True)

    def fitted(self, rows: PromptTable, C: float | None = None, draws: int = 1000) -> WinRate:  # noqa: N803
        columns = (rows.preference, rows.len_model, rows.len_reference, rows.difficulty)
        return length_controlled(*columns, gamed=self.gamed, C=C, draws=draws, kind="percentile")


def lines(folder: Path) -> Iterable[str]:
    """The table, line by line; `d…` are ours − published, in points."""
    data = Published(folder)
    yield (
        f"{'model':<36}{'win rate':>9}{'d':>9}{'error':>7}{'d':>9}{'LC at C':>9}{'d':>8}{'LC, CV':>8}{'d':>8}"
        f"{'C':>7}{'pub. C':>8}{'LC error':>10}{'÷ theirs':>10}"
    )
    for model, published in data.expected.items():
        win_rate, error, lc, C = (  # noqa: N806
            float(published[name]) for name in ("win_rate", "standard_error", "lc_published", "C_published_fit")
        )
        # phi-2's file lacks two instructions: its published value is that of the join by position that made it.
        rows = data.joined(model, by_position=model == "phi-2")
        at, chosen = data.fitted(rows, C), data.fitted(rows)
        alone = 100 * expit(chosen.weights.difficulty * rows.difficulty + chosen.weights.candidate)
        theirs = alone.std(ddof=1) / np.sqrt(len(alone))  # AlpacaEval's "standard error" of LC
        yield (
            f"{model:<36}{at.win_rate:9.4f}{at.win_rate - win_rate:9.0e}{at.standard_error:7.3f}"
            f"{at.standard_error - error:9.0e}{at.lc_win_rate:9.3f}{at.lc_win_rate - lc:+8.3f}"
            f"{chosen.lc_win_rate:8.3f}{chosen.lc_win_rate - lc:+8.3f}{chosen.C or np.nan:7.2f}{C:8.2f}"
            f"{chosen.lc_standard_error:10.3f}{chosen.lc_standard_error / theirs:10.1f}"
        )
    yield ""
    yield _parsed(data)
    yield _order(data)
    yield _positions(data)
    yield _bootstrap(data)
    yield _paired(data)
    if (folder / "second_judge_cot.csv").exists():
        yield from _agreement(data)


def _parsed(data: Published) -> str:
    worst, count = 0.0, 0
    for row in data.annotations:
        first, second = (float(row[name]) if row[name] else None for name in ("lp_m", "lp_M"))
        if first is not None or second is not None:
            switched = seeded_order(data.items[int(row["index"])]["instruction"])
            value = preference_from_logprobs(first, second, candidate_first=switched)
            worst, count = max(worst, abs(value - float(row["preference"]))), count + 1
    return f"log-probability parser: {count:,} stored verdicts, the largest difference {worst:.0e}"


def _order(data: Published) -> str:
    model = next(iter(data.expected))
    rows, order = data.joined(model), np.random.default_rng(0).permutation(len(data.joined(model).preference))
    shuffled = PromptTable(
        tuple(rows.instructions[i] for i in order),
        *(column[order] for column in (rows.preference, rows.len_model, rows.len_reference, rows.difficulty)),
    )
    same = data.fitted(shuffled) == data.fitted(rows)
    return f"rows in another order: {'the same to the last bit' if same else 'NOT the same'} ({model})"


def _positions(data: Published) -> str:
    published = data.expected["phi-2"]
    keyed = data.fitted(data.joined("phi-2"), float(published["C_published_fit"])).lc_win_rate
    return (
        f"phi-2 joined by instruction: LC {keyed:.3f}, published {float(published['lc_published']):.3f} "
        f"({keyed - float(published['lc_published']):+.2f}: two rows are missing, and the join by position gives every "
        "row after them its neighbour's difficulty)"
    )


def _bootstrap(data: Published) -> str:
    rows = data.joined("claude-2")
    columns = (rows.preference, rows.len_model, rows.len_reference, rows.difficulty)
    start = time.process_time()
    found = length_controlled(*columns, gamed=data.gamed, C=float(data.expected["claude-2"]["C_published_fit"]))
    seconds = time.process_time() - start
    low, high = found.lc_interval
    return f"1,000 draws with the fit inside, BCa: {seconds:.1f} s of one core (claude-2: [{low:.2f}, {high:.2f}])"


def _paired(data: Published) -> str:
    ours, theirs = data.joined("vicuna-7b-v1.5"), data.joined("alpaca-7b")
    found = win_rate_difference(ours, theirs, gamed=data.gamed)
    said = [f"{i.value:+.2f} [{i.low:+.2f}, {i.high:+.2f}]" for i in (found.win_rate, found.lc_win_rate)]
    return f"vicuna-7b-v1.5 − alpaca-7b, paired over {found.prompts}: win rate {said[0]}, LC {said[1]}"


def _agreement(data: Published) -> Iterable[str]:
    second = data.table("second_judge_cot.csv")
    for model in dict.fromkeys(row["model"] for row in second):
        judges: dict[str, dict[Hashable, float]] = {
            "logprob": {r["index"]: float(r["preference"]) for r in data.annotations if r["model"] == model},
            "reasoning": {r["index"]: float(r["preference_cot_fn"]) for r in second if r["model"] == model},
        }
        if judges["logprob"].keys().isdisjoint(judges["reasoning"]):
            yield f"two judges on {model}: no verdict of the first is among these tables"
            continue
        (found,) = compare_judges(judges).values()
        kappa = f"{found.kappa.value:.2f} [{found.kappa.low:.2f}, {found.kappa.high:.2f}]"
        rates = " and ".join(f"{100 * rate['candidate']:.1f} %" for rate in found.base_rates)
        yield (
            f"two judges on {model}, {found.items} items: raw agreement {100 * found.raw.value:.1f} % (by chance "
            f"{100 * found.chance:.1f} %), κ {kappa}, candidate preferred by {rates}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="AlpacaEval's published figures, recomputed.")
    parser.add_argument("folder", type=Path, help="folder with items.csv, annotations.csv, expected.csv, …")
    for line in lines(parser.parse_args().folder):
        print(line, flush=True)


if __name__ == "__main__":
    main()
