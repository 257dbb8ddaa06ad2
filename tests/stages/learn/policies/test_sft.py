"""Fine-tuning: what is predicted, what is saved, and that padding plays no part."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stages import records
from stages.engine.language_model import load_model, load_tokenizer
from stages.errors import BadInput
from stages.learn.policies.sft import FineTune, encode_references
from stages.learn.responses import Exchange, response_nats
from stages.records import Prompt
from stages.runtime import Runtime


def test_reference_and_eos_are_the_response(tiny_model: Path):
    tokenizer = load_tokenizer(tiny_model)
    prompt = Prompt(id="a", part="sft", text="review: the film", reference=" is dull")
    (found,) = encode_references(tokenizer, [prompt], 64)
    assert tokenizer.decode(found.prompt) == "review: the film"
    assert tokenizer.decode(found.response) == " is dull<|im_end|>"


def test_a_cut_response_has_no_eos_and_one_without_room_is_left_out(tiny_model: Path):
    tokenizer = load_tokenizer(tiny_model)
    prompt = Prompt(id="a", part="sft", text="the film", reference=" is dull and noisy")
    (whole,) = encode_references(tokenizer, [prompt], 64)
    (cut,) = encode_references(tokenizer, [prompt], len(whole.prompt) + 2)
    assert cut.response == whole.response[:2]
    assert encode_references(tokenizer, [prompt], len(whole.prompt)) == []


def test_loss_counts_response_tokens_only_and_not_the_padding(tiny_model: Path):
    model = load_model(tiny_model, dtype="float32", device="cpu")
    batch = [Exchange([5, 9, 17], [30, 2]), Exchange([40], [41, 42, 43, 44, 2])]
    summed, tokens = response_nats(model, batch)
    # by hand: −Σ log softmax(logits)[next token] over the positions before a response token
    expected = 0.0
    for prompt, response in batch:
        ids = torch.tensor([prompt + response])
        logprobs = model(input_ids=ids).logits[0].log_softmax(-1)
        for place, token in enumerate(response, len(prompt)):
            expected -= float(logprobs[place - 1, token])
    assert tokens == 7
    assert float(summed) == pytest.approx(expected, rel=1e-5)


def train(model: Path, prompts: Path, out: Path, runtime: Runtime | None = None, **fields) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "lora_rank": 4,
        "top_layers": 0,
        "learning_rate": 1e-2,
        "batch_size": 8,
        "epochs": 8,
        "dtype": "float32",
    } | fields
    FineTune(model=model, prompts=prompts, runtime=runtime or Runtime(rows=7), **settings).run(out)
    return out


def test_learns_and_saves_an_ordinary_model_folder(
    tmp_path: Path, tiny_model: Path, references: Path, figures: tuple[Runtime, dict[str, float]]
):
    out = train(tiny_model, references, tmp_path / "sft", figures[0])
    figure = figures[1]
    assert figure["heldout_nats_after"] < 0.7 * figure["heldout_nats_before"]
    assert (figure["sequences"], figure["steps"]) == (60, 64)
    # the folder alone gives the figure: measured afresh on what from_pretrained loads
    model, tokenizer = load_model(out, dtype="float32", device="cpu"), load_tokenizer(out)
    heldout = [p for p in records.read(references / "prompts.parquet", Prompt) if p.part == "sft_heldout"]
    nats, tokens = response_nats(model, encode_references(tokenizer, heldout, 64))
    assert float(nats) / tokens == pytest.approx(figure["heldout_nats_after"], rel=1e-4)
    assert not any("lora" in name for name, _ in model.named_parameters())
    card = (out / "README.md").read_text()
    assert "learning_rate: 0.01" in card
    assert str(tmp_path) not in card


def test_the_base_model_folder_and_the_global_generator_are_left_alone(
    tmp_path: Path, tiny_model: Path, references: Path
):
    before = (tiny_model / "model.safetensors").read_bytes()
    state = torch.random.get_rng_state()
    train(tiny_model, references, tmp_path, epochs=0.1)
    assert (tiny_model / "model.safetensors").read_bytes() == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, tiny_model: Path, references: Path):
    a, b, c = (
        (train(tiny_model, references, tmp_path / name, epochs=0.5, seed=seed) / "model.safetensors").read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert a == b
    assert a != c


def test_a_bfloat16_model_is_saved_as_such_and_still_learns(
    tmp_path: Path, tiny_model: Path, references: Path, figures: tuple[Runtime, dict[str, float]]
):
    out = train(tiny_model, references, tmp_path, figures[0], dtype="bfloat16")
    assert {weight.dtype for weight in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert figures[1]["heldout_nats_after"] < 0.7 * figures[1]["heldout_nats_before"]
    assert math.isfinite(figures[1]["heldout_nats_after"])


def test_a_part_without_references_is_refused_by_name(tmp_path: Path, tiny_model: Path, references: Path):
    with pytest.raises(BadInput, match=r"^part: .*'train' has a reference; .*: sft, sft_heldout"):
        train(tiny_model, references, tmp_path, part="train")
    with pytest.raises(BadInput, match=r"^heldout: .*'none'"):
        train(tiny_model, references, tmp_path, heldout="none")


def test_too_few_tokens_are_refused(tmp_path: Path, tiny_model: Path, references: Path):
    with pytest.raises(BadInput, match=r"^max_tokens: 1 tokens leave no room"):
        train(tiny_model, references, tmp_path, max_tokens=1)


def test_only_the_top_layers_are_changed_where_asked(tmp_path: Path, tiny_model: Path, references: Path):
    out = train(tiny_model, references, tmp_path, epochs=0.5, top_layers=1)
    before, after = load_file(tiny_model / "model.safetensors"), load_file(out / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".layers.2." in name for name in changed)  # of layers 0, 1, 2


def test_more_layers_than_there_are_is_refused(tmp_path: Path, tiny_model: Path, references: Path):
    with pytest.raises(BadInput, match=r"^top_layers: 4 is not 0 \(all\) to 3"):
        train(tiny_model, references, tmp_path, top_layers=4)
