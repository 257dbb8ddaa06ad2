"""To AlpacaEval's leaderboard and back, from the command line, on the payload folders of stages.

    python -m stages.judge.alpaca_eval.leaderboard outputs DECODE PROMPTS --name my-model --to model_outputs.json
    python -m stages.judge.alpaca_eval.leaderboard annotations JUDGE DECODE REFERENCE PROMPTS --to annotations.json
    python -m stages.judge.alpaca_eval.leaderboard import model_outputs.json --to FOLDER

Payload folders are those that `tilt run goal=[decode]` names at its end. What is imported becomes a folder with
prompts.parquet and generations.parquet, which can be judged like any other: `generations`, `reference_generations`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stages import records
from stages.errors import BadInput
from stages.judge.alpaca_eval.conversion import (
    annotations_from_verdicts,
    last_question,
    outputs_from_records,
    records_from_outputs,
)
from stages.judge.alpaca_eval.files import ModelOutput, read_outputs, write_annotations, write_outputs
from stages.payloads import read_records
from stages.records import Generation, Prompt, Verdict


def export_outputs(decode: Path, prompts: Path, name: str, part: str, to: Path) -> int:
    """Writes model_outputs.json of one method's responses to the prompts of `part`; how many there are."""
    outputs = _outputs(decode, prompts, name, part)
    write_outputs(to, outputs)
    return len(outputs)


def export_annotations(judge: Path, decode: Path, reference: Path, prompts: Path, part: str, to: Path) -> int:
    """Writes annotations.json of one judge's verdicts on one candidate; how many prompts there are."""
    found = read_records(judge / "verdicts.parquet", Verdict, "judge")
    verdicts = [v for v in found if v.part == part and not v.canary]
    if not verdicts:
        raise BadInput("judge", f"{judge} holds no verdict on part {part!r}")
    instructions = {p.id: last_question(p) for p in read_records(prompts / "prompts.parquet", Prompt, "prompts")}
    ours = _outputs(decode, prompts, verdicts[0].candidate, part)
    theirs = _outputs(reference, prompts, verdicts[0].reference, part)
    annotations = annotations_from_verdicts(verdicts, ours, theirs, instructions)
    write_annotations(to, annotations)
    return len(annotations)


def import_outputs(file: Path, part: str, to: Path) -> int:
    """Writes prompts.parquet and generations.parquet from model_outputs.json; how many there are."""
    prompts, generations = records_from_outputs(read_outputs(file), part)
    to.mkdir(parents=True, exist_ok=True)
    records.write(to / "prompts.parquet", Prompt, prompts)
    records.write(to / "generations.parquet", Generation, generations)
    return len(generations)


def _outputs(decode: Path, prompts: Path, name: str, part: str) -> list[ModelOutput]:
    generations = [g for g in read_records(decode / "generations.parquet", Generation, "generations") if g.part == part]
    if not generations:
        raise BadInput("generations", f"{decode} holds no response to a prompt of part {part!r}")
    return outputs_from_records(generations, read_records(prompts / "prompts.parquet", Prompt, "prompts"), name)


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 with one line for what cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.judge.alpaca_eval.leaderboard", description="AlpacaEval files, out and in."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    folders = {"outputs": ["decode", "prompts"], "annotations": ["judge", "decode", "reference", "prompts"]}
    for verb, places in (folders | {"import": ["file"]}).items():
        own = verbs.add_parser(verb)
        for place in places:
            own.add_argument(place, type=Path)
        own.add_argument("--to", type=Path, required=True)
        own.add_argument("--part", default="test")
        if verb == "outputs":
            own.add_argument("--name", required=True, help="the model's name on the leaderboard")
    given = vars(parser.parse_args(arguments))
    verb = given.pop("verb")
    try:
        count = {"outputs": export_outputs, "annotations": export_annotations, "import": import_outputs}[verb](**given)
    except BadInput as error:
        print(f"leaderboard: {error}", file=sys.stderr)
        return 2
    print(f"{count} rows: {given['to']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
