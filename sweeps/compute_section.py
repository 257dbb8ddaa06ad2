"""The part of the report about compute: what a response takes, and what training its models took. HTML."""

from collections.abc import Mapping
from html import escape
from typing import Any

from sweeps.html_cells import NONE, cell, row_head
from sweeps.wording import count_text, trained_sets, users


def compute_section(content: Mapping[str, Any]) -> str:
    """A table with a row for each point, its decoding and its training, and notes on what is counted."""
    rows = [
        row_head(content, number)
        + f"<td>{flops_html(point['flops']['mean'])}</td>"
        + cell(point["tokens"], 0)
        + cell(point["tokens_per_second"], 1)
        + cell(point["seconds"], 1)
        + _training_cells(point["training"])
        + "</tr>"
        for number, point in enumerate(content["points"])
    ]
    return (
        '<div class="table"><table><thead><tr><th>method<th class=text>setting<th>FLOPs<br>a response'
        "<th>tokens through<br>all models<th>tokens / s<th>seconds<th>training<br>FLOPs<th>training<br>tokens"
        f"<th>rollout<br>FLOPs</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{_notes(content)}"
    )


def _training_cells(training: Mapping[str, float] | None) -> str:
    if training is None:
        return NONE * 3
    return (
        f"<td>{flops_html(training['train_flops'])}</td><td>{count_text(training['train_tokens'])}</td>"
        f"<td>{flops_html(training['rollout_flops'])}</td>"
    )


def _notes(content: Mapping[str, Any]) -> str:
    notes = [
        "FLOPs and tokens a response count every model that ran for it: the rejected candidates and samples, and the "
        f"reward that selects among them.{_uncounted(content)}",
        "Seconds are those of whole batches, divided evenly among their responses: intervals of time and rate show how "
        "prompts differ, not how two runs do.",
    ]
    if sets := trained_sets(content):
        said = [f"{escape(models)} for {escape(', '.join(names))}" for models, _, names in sets]
        notes.append(
            f"Trained here: {'; '.join(said)}. Training counts forward and backward passes of what a method needs "
            "beyond the base policy and the rewards, which all share; rollout FLOPs are what drawing the responses "
            "took that it learnt from, once for all methods that learn from the same ones. Measuring KL and scoring "
            "those responses are charged to nobody. FLOPs a response leave training out: spread it over the responses "
            "that a model is to serve."
        )
    return "".join(f"<p class=note>{note}</p>" for note in notes)


def _uncounted(content: Mapping[str, Any]) -> str:
    """A sentence for each reward that does not say what scoring takes."""
    points: dict[str, list[int]] = {}
    for number, point in enumerate(content["points"]):
        for name in point["uncounted"]:
            points.setdefault(name, []).append(number)
    return "".join(
        f" {escape(name)} does not say what scoring takes and counts as free for "
        f"{escape(', '.join(users(content, numbers)))}."
        for name, numbers in points.items()
    )


def flops_html(value: float | None) -> str:
    """`3.2 × 10¹¹`; `0` for nothing, `–` for not known.

    >>> flops_html(3.21e11), flops_html(0.0), flops_html(None)
    ('3.2 × 10<sup>11</sup>', '0', '–')
    """
    if value is None:
        return "–"
    if not value:
        return "0"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa} × 10<sup>{int(exponent)}</sup>"
