"""AlpacaEval's files, to and from our records, so that results can go to that leaderboard and come from it.

    model_outputs.json   [{instruction, output, generator, dataset}, …]           ↔ Prompt + Generation
    annotations.json     [{instruction, output_1, output_2, generator_1,
                           generator_2, preference}, …]                           ↔ Verdict

The files themselves are read and written in alpaca_files.py. Everything is joined by instruction or prompt id, never
by position.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from stages.errors import BadInput
from stages.judge.alpaca_eval.files import Annotation, ModelOutput, refuse, repeated
from stages.judge.verdicts.order import CANDIDATE_FIRST, EITHER, REFERENCE_FIRST, seeded_order
from stages.judge.verdicts.outcomes import UNREADABLE, VERDICT
from stages.judge.verdicts.summary import pair_preferences
from stages.records import Generation, Prompt, Verdict
from stages.reward import judged_text


def last_question(prompt: Prompt) -> str:
    """AlpacaEval's `instruction`: the last user message of a chat, the prompt's text otherwise."""
    asked = [message["content"] for message in prompt.messages if message["role"] == "user"]
    return asked[-1] if asked else prompt.text


def prompt_id(instruction: str) -> str:
    """The id of an imported prompt: a digest of its instruction.

    >>> prompt_id("How did US states get their names?")
    'alpaca-eval-08a2161485c1'
    """
    return "alpaca-eval-" + hashlib.sha256(instruction.encode()).hexdigest()[:12]


# --- model_outputs.json -----------------------------------------------------------------------------------------------


def outputs_from_records(
    generations: Sequence[Generation],
    prompts: Iterable[Prompt],
    generator: str,
    datasets: Mapping[str, str] | None = None,
) -> list[ModelOutput]:
    """One output a prompt, in the order of the generations. `datasets`: prompt id → AlpacaEval's name of the subset;
    the prompt's part where it is not given.

    The opening of a prompt belongs to the output. Outputs that were sampled here lose the blanks around them, which
    come from the template and count as characters; imported ones stay as they are.

    Raises BadInput for generations without a prompt, several samples of one prompt, and prompts that ask the same.
    """
    known = {prompt.id: prompt for prompt in prompts}
    refuse("generations", (g.prompt_id for g in generations if g.prompt_id not in known), "without a prompt")
    several = [key for key, count in Counter(g.prompt_id for g in generations).items() if count > 1]
    refuse("generations", several, "with several generations; AlpacaEval takes one: choose a sample and a method")
    outputs = []
    for generation in generations:
        prompt = known[generation.prompt_id]
        text = judged_text(prompt, generation.text)
        text = text.strip() if generation.token_ids else text
        dataset = (datasets or {}).get(prompt.id, prompt.part)
        outputs.append(ModelOutput(last_question(prompt), text, generator, dataset))
    refuse("prompts", repeated(outputs), "asked by several prompts; AlpacaEval tells rows apart by instruction")
    return outputs


def records_from_outputs(
    outputs: Iterable[ModelOutput], part: str = "test", prompts: Iterable[Prompt] | None = None
) -> tuple[list[Prompt], list[Generation]]:
    """Prompts and generations of imported outputs; what nobody measured is nan, 0 or empty (no tokens, no KL).

    `prompts`: yours, found by instruction; without them prompts are made, with the instruction as a chat message.
    Raises BadInput for instructions that your prompts do not hold.
    """
    outputs = list(outputs)
    if prompts is None:
        found = {output.instruction: _new_prompt(output.instruction, part) for output in outputs}
    else:
        found = {last_question(prompt): prompt for prompt in prompts}
        missing = [output.instruction for output in outputs if output.instruction not in found]
        refuse("prompts", missing, "not among the prompts")
    nan = math.nan
    generations = [
        Generation(
            prompt_id=found[output.instruction].id,
            sample=0,
            token_ids=[],
            text=output.output.removeprefix(found[output.instruction].opening),
            logprob=nan,
            finished=True,
            part=found[output.instruction].part,
            method=output.generator,
            settings="{}",
            base_logprob=nan,
            kl=nan,
            kl_kind="none",
            tokens=0,
            flops=0.0,
            seconds=0.0,
        )
        for output in outputs
    ]
    return [found[output.instruction] for output in outputs], generations


# --- annotations.json -------------------------------------------------------------------------------------------------


def annotations_from_verdicts(
    verdicts: Sequence[Verdict],
    candidates: Sequence[ModelOutput],
    references: Sequence[ModelOutput],
    instructions: Mapping[str, str],
) -> list[Annotation]:
    """One annotation a prompt from verdicts on one candidate by one judge; two orders become their mean preference.

    A prompt whose verdicts all failed gets None; verdicts on the canary are left out. `instructions`: prompt id →
    instruction. Raises BadInput for several judges, several samples of a prompt, and outputs that are missing.
    """
    verdicts = [verdict for verdict in verdicts if not verdict.canary]
    if len(judges := sorted({verdict.judge for verdict in verdicts})) > 1:
        raise BadInput("verdicts", f"{len(judges)} judges ({', '.join(judges)}); one file holds one judge's verdicts")
    pairs = dict.fromkeys((verdict.prompt_id, verdict.sample) for verdict in verdicts)
    several = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    refuse("verdicts", several, "with several samples; AlpacaEval takes one")
    refuse("verdicts", (key for key, _ in pairs if key not in instructions), "without an instruction")
    asked = {key: instructions[key] for key, _ in pairs}
    ours, theirs = ({output.instruction: output for output in side} for side in (candidates, references))
    refuse("candidates", (text for text in asked.values() if text not in ours), "without a candidate's output")
    refuse("references", (text for text in asked.values() if text not in theirs), "without a reference output")
    preferences = pair_preferences(verdicts)
    annotations = []
    for pair in pairs:
        instruction = asked[pair[0]]
        one, two, mean = theirs[instruction], ours[instruction], preferences.get(pair)
        annotations.append(Annotation(instruction, one.output, two.output, one.generator, two.generator, mean))
    return annotations


def verdicts_from_annotations(
    annotations: Iterable[Annotation],
    judge: str,
    *,
    part: str = "test",
    seeded: bool = True,
    prompt_ids: Mapping[str, str] | None = None,
) -> list[Verdict]:
    """Verdicts of imported annotations, one each; None becomes the outcome `unreadable`.

    `seeded`: the judge saw the order that AlpacaEval draws for the instruction, its default; False where that is not
    so or not known. `prompt_ids`: instruction → your prompt's id; without it, the id of an imported prompt.
    """
    annotations = list(annotations)
    if prompt_ids is not None:
        missing = [a.instruction for a in annotations if a.instruction not in prompt_ids]
        refuse("prompts", missing, "not among the prompts")
    verdicts = []
    for row in annotations:
        order = (CANDIDATE_FIRST if seeded_order(row.instruction) else REFERENCE_FIRST) if seeded else EITHER
        verdicts.append(
            Verdict(
                prompt_id=prompt_id(row.instruction) if prompt_ids is None else prompt_ids[row.instruction],
                part=part,
                sample=0,
                judge=judge,
                candidate=row.generator_2,
                reference=row.generator_1,
                canary=False,
                order=order,
                preference=row.preference,
                outcome=UNREADABLE if row.preference is None else VERDICT,
                problem="" if row.preference is not None else "imported without a preference",
                candidate_chars=len(row.output_2),
                reference_chars=len(row.output_1),
                answer="",
                asked=1,
                model="",
                prompt_tokens=0,
                completion_tokens=0,
                cost=None,
                request="",
            )
        )
    return verdicts


def _new_prompt(instruction: str, part: str) -> Prompt:
    message = {"role": "user", "content": instruction}
    return Prompt(id=prompt_id(instruction), part=part, text=instruction, messages=[message])
