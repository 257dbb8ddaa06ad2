"""The part of the report about judges: win rates, length control, positions, failed verdicts, the null model. HTML."""

from collections.abc import Mapping
from html import escape
from typing import Any

from sweeps.html_cells import NONE, cell, name, row_head, signed
from sweeps.wording import bounds_text, failed_text


def judge_section(content: Mapping[str, Any]) -> str:
    """A table for each judge with its notes, then how far judges agree; empty where nobody judged."""
    if not content["judges"]:
        return ""
    sections = []
    differences = {d["point"]: d["judges"] for d in content["differences"]}
    against = "" if content["reference"] is None else f"<br>to {name(content, content['reference'])}"
    for place, judged in enumerate(content["judges"]):
        lines = []
        for number, found in enumerate(judged["points"]):
            if found is None:
                continue
            compared = differences[number][place] if number in differences else None
            lines.append(row_head(content, number) + _cells(found, compared, judged["reference"]))
        sections.append(
            f"<h3>{escape(judged['judge'])}, every point against {escape(judged['reference'])}</h3>"
            '<div class="table"><table><thead><tr><th>method<th class=text>setting<th>win rate, %'
            f"<th>length-<br>controlled, %<th>difference{against}<th>same winner in<br>both orders, %"
            "<th>gain by<br>being second<th>failed<br>verdicts</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody></table></div>"
            + "".join(f"<p class=note>{escape(note)}</p>" for note in _notes(content, judged))
        )
    sections += [_agreement_table(content, agreement) for agreement in content["agreements"]]
    return "<h2>What the judge says</h2>" + "".join(sections)


def _agreement_table(content: Mapping[str, Any], agreement: Mapping[str, Any]) -> str:
    first, second = (escape(judge) for judge in agreement["judges"])
    lines = []
    for number, found in enumerate(agreement["points"]):
        if found is None:
            continue
        kappa = NONE  # where both always choose the same, chance leaves nothing to miss
        if found["kappa"] is not None:
            kappa = f"<td>{found['kappa']:.2f}<small>[{found['kappa_low']:.2f}, {found['kappa_high']:.2f}]</small></td>"
        rates = "".join(f"<td>{rate:.0f}</td>" for rate in found["candidate_preferred"])
        lines.append(
            f"{row_head(content, number)}<td>{found['pairs']}</td><td>{found['raw']:.0f}</td>"
            f"{kappa.replace('-', '−')}{rates}</tr>"
        )
    return (
        f"<h3>Do {first} and {second} agree?</h3>"
        '<div class="table"><table><thead><tr><th>method<th class=text>setting<th>pairs<th>raw agreement, %'
        f"<th>Cohen’s κ<th>prefers it, %<br>{first}<th>prefers it, %<br>{second}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        "<p class=note>κ: what is left of the agreement beyond that of two judges with these rates who look at "
        "nothing; 0 as by chance, 1 always. Intervals over pairs.</p>"
    )


def _cells(found: Mapping[str, Any], compared: Mapping[str, Any] | None, reference: str) -> str:
    difference = NONE if compared is None else f"<td>{signed(compared)}</td>"
    if found["itself"]:
        same = f'<td class="none" colspan="2">same responses as {escape(reference)}</td>'
        return f"{same}{difference}{3 * NONE}</tr>"
    lc = found["length_controlled"]
    controlled = NONE if lc is None else cell(lc, 1)
    if lc is not None and found["notes"]:
        controlled = controlled.replace("<td>", "<td>† ", 1)
    shares = "".join(
        NONE if found[share] is None else f"<td>{found[share]:{sign}.0f}</td>".replace("-", "−")
        for share, sign in (("swap_consistency", ""), ("position_effect", "+"))
    )
    bounds = f"<small>win rate {bounds_text(found)}</small>" if found["failures"] else ""
    return (
        f"{cell(found['win_rate'], 1)}{controlled}{difference}{shares}"
        f"<td>{escape(failed_text(found))}{bounds}</td></tr>"
    )


def _notes(content: Mapping[str, Any], judged: Mapping[str, Any]) -> list[str]:
    notes = [
        "A win counts 1, a tie ½; orders and samples of a prompt are averaged first, intervals are over prompts. "
        "Length-controlled: the win rate at equal length (AlpacaEval 2's model, without difficulties of instructions), "
        "refitted in every draw. Below failed verdicts: the win rate were they all lost … and all won."
    ]
    reasons: dict[str, list[str]] = {}
    for point, found in zip(content["points"], judged["points"], strict=True):
        for note in found["notes"] if found and found["length_controlled"] else ():
            reasons.setdefault(note, []).append(point["name"])
    if reasons:
        notes.append("† " + "; ".join(f"{', '.join(names)}: {note}" for note, names in reasons.items()) + ".")
    if (canary := judged["canary"]) and "win_rate" in canary:
        fate = "loses, as it has to" if canary["lost"] else "does not clearly lose: distrust this judge"
        notes.append(
            f"A null model that answers everything alike wins {canary['win_rate']:.0f} % of {canary['pairs']:.0f} "
            f"prompts (up to {canary['high']:.0f} % by chance): it {fate}."
        )
    return notes
