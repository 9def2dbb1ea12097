"""Two Hugging Face models: completions sampled or given, and scored as each model alone would score them."""

import json

import numpy as np
import pytest

import credit
from credit import lens
from credit.lens.__main__ import main
from credit.lens.prompts import read_prompts

transformers = pytest.importorskip("transformers")
tiny_model = pytest.importorskip("tiny_model")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of two small models with one tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = tiny_model.character_tokenizer()
    for seed, name in enumerate(("policy", "reference")):
        model = tiny_model.small_qwen2(len(tokenizer), hidden_size=32, layers=1, seed=seed)
        for parameter in model.parameters():
            parameter.data *= 3.0  # so that the two differ
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def run(models, tmp_path, prompts, *flags):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(p) + "\n" for p in prompts))
    kept = tmp_path / "kept.jsonl"
    arguments = ["--model", models / "policy", "--reference", models / "reference", "--prompts", path]
    arguments += ["--keep", kept, "-o", tmp_path / "lens.html", "--device", "cpu", *flags]
    return main([str(argument) for argument in arguments]), kept


PROMPTS = [
    {"prompt": "12>", "answer": "13"},
    {"prompt": "1+2+3>", "answer": "6"},
    {"prompt": "4>", "answer": "4"},
]


def test_statistics_are_those_of_each_completion_alone(models, tmp_path):
    import torch

    status, kept = run(
        models, tmp_path, PROMPTS, "--generations", 4, "--max-new-tokens", 9, "--temperature", 0.8
    )
    assert status == 0
    assert (tmp_path / "lens.html").exists()
    lines = list(lens.read(kept))
    assert [line.group for line in lines] == [0] * 4 + [1] * 4 + [2] * 4
    assert len({len(line.tokens) for line in lines}) > 1
    load = transformers.AutoModelForCausalLM.from_pretrained
    sides = [load(models / name) for name in ("policy", "reference")]
    tokenizer = transformers.AutoTokenizer.from_pretrained(models / "policy")
    for line in lines:
        prompt, completion = (
            tokenizer.convert_tokens_to_ids(list(text)) for text in (line.prompt, line.tokens)
        )
        assert all(line.mask)
        with torch.no_grad():
            ids = torch.tensor([prompt + completion])
            x, y = (side(ids).logits[0, len(prompt) - 1 : -1].double().numpy() for side in sides)
        for field, values in zip(credit.TokenStatistics._fields, exact(x, y, completion), strict=True):
            np.testing.assert_allclose(getattr(line, field), values, rtol=1e-4, atol=1e-6, err_msg=field)


def exact(x, y, ids, temperature=0.8):
    """The four statistics by their definitions, in float64."""
    log_p, log_q = (side / temperature for side in (x, y))
    log_p, log_q = (side - np.log(np.exp(side).sum(axis=-1, keepdims=True)) for side in (log_p, log_q))
    at = np.arange(len(ids)), ids
    entropy = -(np.exp(log_p) * log_p).sum(axis=-1) / np.log(x.shape[-1])
    return log_p[at], log_q[at], entropy, 1 - np.exp(0.5 * (log_p + log_q)).sum(axis=-1)


def test_given_completions_are_scored_with_their_rewards(models, tmp_path):
    given = [
        {"prompt": "1>", "completion": "12", "reward": 1.0},
        {"prompt": "1>", "completion": "345", "reward": 0.0},
        {"prompt": "22>", "completion": "9", "reward": None},
    ]
    status, kept = run(models, tmp_path, given, "--settings", '{"tau": 0.01}')
    assert status == 0
    lines = list(lens.read(kept))
    assert [line.tokens for line in lines] == [["1", "2"], ["3", "4", "5"], ["9"]]
    assert [(line.group, line.reward, line.valid) for line in lines] == [
        (0, 1, True),
        (0, 0, True),
        (1, None, False),
    ]
    assert lines[0].advantage == pytest.approx(2**-0.5, rel=1e-4)
    assert np.mean(lines[1].weights) == pytest.approx(1.0, abs=1e-6)
    assert credit.parse(lines[0].estimator) == credit.DGPO(tau=0.01)


def test_a_reward_function_is_called_as_trl_does(models, tmp_path):
    source = tmp_path / "rewards.py"
    source.write_text(
        "def length(completions, prompts, answer, **_):\n"
        "    return [len(c) + len(p) + int(a) for c, p, a in zip(completions, prompts, answer, strict=True)]\n"
    )
    flags = ("--reward", f"{source}:length", "--generations", 2, "--max-new-tokens", 4)
    status, kept = run(models, tmp_path, PROMPTS, *flags)
    assert status == 0
    for line in lens.read(kept):
        text = "".join(piece for piece in line.tokens if not piece.startswith("<"))
        answer = next(p["answer"] for p in PROMPTS if p["prompt"] == line.prompt)
        assert line.reward == len(text) + len(line.prompt) + int(answer)


def test_sampling_repeats_with_its_seed(models, tmp_path):
    def tokens(name, seed):
        (tmp_path / name).mkdir()
        _, kept = run(models, tmp_path / name, PROMPTS[:1], "--seed", seed, "--max-new-tokens", 12)
        return [line.tokens for line in lens.read(kept)]

    assert tokens("a", 1) == tokens("b", 1) != tokens("c", 2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--reward", "nowhere.py:f"], "'nowhere.py' is no file; expected file.py:function"),
        (["--estimator", "remax"], "remax needs baseline_rewards"),
        (["--estimator", "dgpo", "--settings", '{"hotness": 1}'], "unknown setting 'hotness'"),
    ],
    ids=["reward", "needs", "setting"],
)
def test_what_cannot_be_done_is_refused(models, tmp_path, capsys, flags, message):
    status, kept = run(models, tmp_path, PROMPTS[:1], "--max-new-tokens", 2, *flags)
    assert status == 1
    assert message in capsys.readouterr().err
    assert not kept.exists()


def test_models_of_different_vocabularies_are_refused(models, tmp_path, capsys):
    other = tiny_model.character_tokenizer("abc")
    tiny_model.small_qwen2(len(other), hidden_size=32, layers=1).save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    status, _ = run(models, tmp_path, PROMPTS[:1], "--reference", tmp_path / "other")
    assert status == 1
    assert "the tokenizers of" in capsys.readouterr().err


def test_prompts_of_a_text_file_and_of_json_lines(tmp_path):
    text, lines = tmp_path / "p.txt", tmp_path / "p.jsonl"
    text.write_text('1+1=\n\n{"a"}\n')
    assert read_prompts(text) == [{"prompt": "1+1="}, {"prompt": '{"a"}'}]
    assert read_prompts(text, 1) == [{"prompt": "1+1="}]
    for content, message in (
        ('{"prompt": "a"}\n{"text": "b"}', 'line 2: expected an object such as {"prompt": "2.2="}'),
        ("{", "line 1: Expecting property name"),
        ("\n", "holds no prompts"),
    ):
        lines.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_prompts(lines)


def test_pieces_of_a_byte_level_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    text = "x 世🙂"
    ids = [*fast(text)["input_ids"], fast.eos_token_id]
    (pieces,) = lens.text_pieces(fast, [ids])
    assert pieces == ["x", " ", "", "", "世", "", "", "", "🙂", "<eos>"]
