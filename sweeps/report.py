"""The report: one self-contained HTML page from the contents of `comparison.json`.

Nothing is fetched when it opens: plotly.js is part of the page, and the page's content security policy forbids to load
anything else. Text, styles and plots are in `report.html`; this file fills in the data. All text is escaped.
"""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from sweeps.compute_section import compute_section
from sweeps.foresight_section import foresight_section
from sweeps.html_cells import NONE, cell, method_class, minus, name, row_head, signed
from sweeps.judge_section import judge_section
from sweeps.stage_graph import draw, duration
from sweeps.wording import number_text

TEMPLATE = Path(__file__).with_name("report.html")


def render(content: Mapping[str, Any]) -> str:
    """The page for a comparison. `content`: as `sweeps.content.describe` makes it."""
    parts = {
        "title": escape(_title(content)),
        "verdict": minus(escape(content["verdict"])),
        "setting": escape(_setting(content)),
        "differences": _differences(content),
        "choices": _choices(content),
        "rewards": _rewards_table(content),
        "beside": _beside_table(content),
        "notes": _notes(content),
        "judges": judge_section(content),
        "compute": compute_section(content),
        "foresight": foresight_section(content),
        "generations": _generations(content),
        "graph": draw(content["lineage"]),
        "timings": _timings(content["lineage"]),
        "data": json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        "plotly": get_plotlyjs().replace("</script", "<\\/script"),
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    head, *rest = page.split("{{")
    filled = [head]
    for piece in rest:  # one pass, so that braces in the data stay as they are
        part, _, text = piece.partition("}}")
        filled += [parts[part.strip()], text]
    return "".join(filled)


def _title(content: Mapping[str, Any]) -> str:
    methods = list(dict.fromkeys(point["method"] for point in content["points"]))
    return f"Reward against KL: {', '.join(methods)}"


def _setting(content: Mapping[str, Any]) -> str:
    points = content["points"]
    return (
        f"{len(points)} points on {content['prompts']} {content['report_part']} prompts, {points[0]['samples']} "
        f"responses a point. 95 % intervals: BCa bootstrap over prompts, {content['draws']:,} draws."
    )


def _differences(content: Mapping[str, Any]) -> str:
    if not content["differences"]:
        return ""
    reference = name(content, content["reference"])
    rows = "".join(
        f"<tr><th scope=row>{name(content, d['point'])}</th><td>{signed(d['gold'])}</td>"
        f"<td>{signed(d['proxy'])}</td><td>{number_text(d['detectable'])}</td></tr>"
        for d in content["differences"]
    )
    return (
        f"<h3>Difference to {reference}</h3><table><thead><tr><th>method<th>gold<th>proxy"
        f"<th>detectable</tr></thead><tbody>{rows}</tbody></table>"
        "<p class=note>Paired over the same prompts. <em>Detectable</em>: the smallest true difference in gold that "
        "this sample would find with 80 % power.</p>"
    )


def _choices(content: Mapping[str, Any]) -> str:
    if not content["choices"]:
        return ""
    items = []
    for choice in content["choices"]:
        why = (
            "the highest proxy of its method"
            if choice["point"] == choice["best"]
            else f"{choice['deficit']:.2f} below {name(content, choice['best'])}, allowed were {choice['allowed']:.2f}"
        )
        items.append(f"<li>{name(content, choice['point'])}: {why} ({choice['prompts']} prompts)</li>")
    part, slack = escape(content["select_part"]), content["slack"]
    rule = (
        f"the smallest KL that is not more than {slack:g} standard errors (of the paired difference) below the best"
        if slack
        else "the best"
    )
    return (
        f"<h3>How strongly</h3><ul>{''.join(items)}</ul><p class=note>Chosen on the {part} prompts by proxy reward "
        f"alone: {rule}. "
        "Gold decides nothing that it judges.</p>"
    )


def _rewards_table(content: Mapping[str, Any]) -> str:
    rows = []
    judges = content["judges"]
    for number, point in enumerate(content["points"]):
        kl, shown = point["kl"], cell(point["kl"])
        if point["kl_kind"] == "bound" and kl["mean"] is not None:
            shown = f"<td>≤ {kl['mean']:.2f}<small>bound</small></td>"
        elif point["kl_kind"] == "untruncated":
            shown = shown.replace("</td>", "<small>before truncation</small></td>")
        rows.append(
            row_head(content, number)
            + cell(point["proxy"])
            + cell(point["gold"])
            + "".join(_win_cell(judge["points"][number]) for judge in judges)
            + shown
            + "</tr>"
        )
    return (
        "<table><thead><tr><th>method<th class=text>setting<th>proxy<th>gold"
        + "".join(
            f"<th>win rate, %<br>{escape(judge['judge'])} against {escape(judge['reference'])}" for judge in judges
        )
        + f"<th>KL, nats</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _win_cell(found: Mapping[str, Any] | None) -> str:
    return NONE if found is None or found["itself"] else cell(found["win_rate"], 1)


def _beside_table(content: Mapping[str, Any]) -> str:
    rows = [
        row_head(content, number)
        + cell(point["length"], 1)
        + cell(point["finished"], 0, 100)
        + cell(point["distinct_2"])
        + cell(point["repetition"])
        + "</tr>"
        for number, point in enumerate(content["points"])
    ]
    return (
        "<table><thead><tr><th>method<th class=text>setting<th>length, tokens<th>finished, %<th>distinct-2"
        f"<th>repetition</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _notes(content: Mapping[str, Any]) -> str:
    notes = []
    kinds = {point["kl_kind"] for point in content["points"]}
    if "bound" in kinds:
        notes.append("The KL of Best-of-N is the upper bound log N − (N − 1)/N; its true value lies at or below it.")
    if "untruncated" in kinds:
        names = ", ".join(dict.fromkeys(p["method"] for p in content["points"] if p["kl_kind"] == "untruncated"))
        notes.append(
            f"{escape(names)}: KL before truncation, at the same temperature and at the states visited. Truncated, "
            "each by its own ranks, such a policy draws tokens that the base policy never does, and the KL as sampled "
            "is infinite; without truncation (sampling.top_p=1) it is exact and compares like with like."
        )
    if "none" in kinds:
        notes.append(f"No KL is known for {escape(_unknown(content))}: against compute, not on the KL axis.")
    return "".join(f"<p class=note>{note}</p>" for note in notes)


def _unknown(content: Mapping[str, Any]) -> str:
    """The methods without a KL; `ivg (6 of 8 points)` where it has one in some settings."""
    names = []
    for method in dict.fromkeys(p["method"] for p in content["points"] if p["kl_kind"] == "none"):
        kinds = [p["kl_kind"] for p in content["points"] if p["method"] == method]
        without = kinds.count("none")
        names.append(method if without == len(kinds) else f"{method} ({without} of {len(kinds)} points)")
    return ", ".join(names)


def _generations(content: Mapping[str, Any]) -> str:
    """Responses of every point to the same prompts, side by side. Those of settings not chosen can be folded away."""
    sections = []
    for entry in content["generations"]:
        cards = []
        for number, response in enumerate(entry["responses"]):
            point = content["points"][number]
            extra = not (point["chosen"] or point["alone"] or number == content["reference"])
            cut = "" if response["finished"] else ' <span class="cut" title="cut at the token limit">⋯</span>'
            text = escape(response["text"].strip()) or "<em>(nothing)</em>"
            cards.append(
                f'<article class="card {method_class(content, number)}{" extra" if extra else ""}">'
                f"<h4>{escape(point['name'])}</h4><p>{text}{cut}</p>"
                f"<footer>proxy {minus(number_text(response['proxy']))} · "
                f"gold {minus(number_text(response['gold']))} · {response['length']} tokens</footer></article>"
            )
        open_end = " …" if entry["prompt"][-1:].isalnum() else ""
        heading = f"<h3>{escape(entry['prompt'])}{open_end}</h3>"
        sections.append(f'<section class="prompt">{heading}<div class="cards">{"".join(cards)}</div></section>')
    return "".join(sections)


def _timings(lineage: list[Mapping[str, Any]]) -> str:
    """All stages, the slowest first."""
    if not lineage:
        return "<p class=note>The stages behind these scores were not handed to this comparison.</p>"
    rows = "".join(
        f"<tr><th scope=row>{escape(str(node['stage']))}</th><td class=text>{escape(str(node.get('label') or ''))}</td>"
        f"<td class=text><code>{escape(str(node['key'])[:12])}</code></td><td>{duration(node.get('seconds'))}</td>"
        f"<td class=text>{'reused' if node.get('reused') else 'ran'}</td></tr>"
        for node in sorted(lineage, key=lambda node: -(node.get("seconds") or 0.0))
    )
    return (
        "<details><summary>All stages by time</summary><table><thead><tr><th>stage<th class=text>point"
        f"<th class=text>key<th>time<th class=text>in this run</tr></thead><tbody>{rows}</tbody></table></details>"
    )
