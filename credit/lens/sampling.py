"""Completions sampled from a Hugging Face model, or given, scored under two models and recorded.

It needs transformers, torch and tqdm, which are imported when a function needs them.
"""

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import credit
from credit.lens.pieces import text_pieces
from credit.lens.records import record

Reward = Callable[..., list[float | None]]


class SamplingOptions(NamedTuple):
    """How completions are sampled and scored."""

    generations: int = 8
    max_new_tokens: int = 256
    temperature: float = 1.0
    batch_size: int = 8
    device: str | None = None
    seed: int = 0


class Models(NamedTuple):
    """Two models, the tokenizer that they share, and the device that they are on."""

    policy: Any
    reference: Any
    tokenizer: Any
    device: str


class Row(NamedTuple):
    """The ids of a prompt and its completion, and the object of the prompts file that they come from."""

    source: dict[str, Any]
    prompt: list[int]
    completion: list[int]


def sample(
    path: str | Path,
    *,
    model: str,
    reference: str,
    prompts: list[dict[str, Any]],
    estimator: credit.Estimator,
    reward: Reward | None = None,
    options: SamplingOptions,
) -> None:
    """Completes the prompts, scores the completions under both models, and appends them to a file.

    Completions of the same prompt form a group.

    Args:
        path: of the file of records.
        model: path or hub name of the policy, from which completions are sampled.
        reference: path or hub name of the reference model.
        prompts: objects with a `prompt`. Where one has a `completion`, it is scored as it is; for the
            others `options.generations` completions are sampled.
        estimator: distributes the credit.
        reward: called as TRL calls reward functions, with completions=, prompts= and the other fields of
            the objects as lists. Default: the `reward` of the objects; if none has one, all rewards are 0,
            on which weights do not depend.
        options: of the sampling.

    Raises:
        ValueError: the tokenizers of the models differ, or the estimator needs a field of the rollouts that
            two models do not provide.
    """
    models = load(model, reference, options.device)
    import_module("torch").manual_seed(options.seed)
    progress = import_module("tqdm.auto").tqdm
    rows = [
        row
        for source in progress(prompts, desc="completions", unit="prompt")
        for row in _generate(models, source, options)
    ]
    batches = [rows[i : i + options.batch_size] for i in range(0, len(rows), options.batch_size)]
    scored = [
        _score_tokens(models, batch, options.temperature)
        for batch in progress(batches, desc="scores", unit="batch")
    ]
    decode = models.tokenizer.decode
    rollouts = _make_rollouts(scored, rows, _compute_rewards(reward, rows, decode))
    record(
        path,
        tokens=text_pieces(models.tokenizer, [r.completion for r in rows], [r.prompt for r in rows]),
        rollouts=rollouts,
        result=estimator(rollouts),
        estimator=estimator,
        prompts=[decode(row.prompt) for row in rows],
    )


def load(model: str, reference: str, device: str | None) -> Models:
    """Loads both models in the dtype they were saved in, in evaluation mode."""
    transformers, torch = import_module("transformers"), import_module("torch")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer, other = (transformers.AutoTokenizer.from_pretrained(name) for name in (model, reference))
    if tokenizer.get_vocab() != other.get_vocab():
        raise ValueError(f"the tokenizers of {model} and {reference} differ; expected the same vocabulary")
    load_model = transformers.AutoModelForCausalLM.from_pretrained
    policy, frozen = (load_model(name, dtype="auto").to(device).eval() for name in (model, reference))
    return Models(policy, frozen, tokenizer, device)


def _generate(models: Models, source: dict[str, Any], options: SamplingOptions) -> Iterator[Row]:
    """The given completion of a prompt, or completions sampled from the policy."""
    prompt = _encode(models.tokenizer, source["prompt"])
    if not prompt:
        raise ValueError(f"the prompt {source['prompt']!r} has no tokens; expected at least one")
    if isinstance(source.get("completion"), str):
        completion = models.tokenizer(source["completion"], add_special_tokens=False)["input_ids"]
        yield Row(source, prompt, completion)
        return
    torch = import_module("torch")
    ids = torch.tensor([prompt], device=models.device)
    generated = models.policy.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_return_sequences=options.generations,
        max_new_tokens=options.max_new_tokens,
        do_sample=True,
        temperature=options.temperature,
        top_k=0,
        top_p=1.0,
        pad_token_id=_padding_id(models.tokenizer),
    )
    for row in generated[:, len(prompt) :].tolist():
        yield Row(source, prompt, _cut_at_end(row, models.policy.generation_config.eos_token_id))


def _encode(tokenizer: Any, prompt: Any) -> list[int]:
    """Ids of a text, or of a chat's messages in the tokenizer's chat template."""
    if not isinstance(prompt, str):
        prompt = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        return list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return list(tokenizer(prompt)["input_ids"])


def _padding_id(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def _cut_at_end(ids: list[int], end: int | list[int] | None) -> list[int]:
    """The ids up to the first end-of-sequence token, which is included."""
    ends = end if isinstance(end, list) else [end]
    positions = [position for position, token in enumerate(ids) if token in ends]
    return ids[: positions[0] + 1] if positions else ids


def _score_tokens(models: Models, rows: list[Row], temperature: float) -> list[credit.TokenStatistics]:
    """The statistics of each row's completion under both models, which see the rows padded on the right."""
    torch = import_module("torch")
    whole = [torch.tensor([*row.prompt, *row.completion]) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(whole, batch_first=True, padding_value=_padding_id(models.tokenizer)).to(models.device)
    attention = pad([torch.ones_like(row) for row in whole], batch_first=True).to(models.device)
    keep = ids.shape[1] - min(len(row.prompt) for row in rows)
    with torch.inference_mode():
        logits = [
            model(input_ids=ids, attention_mask=attention, logits_to_keep=keep + 1).logits[:, :-1]
            for model in (models.policy, models.reference)
        ]
        size = min(each.shape[-1] for each in logits)  # models may pad the vocabulary differently
        statistics = credit.token_statistics(
            logits[0][..., :size], logits[1][..., :size], ids[:, -keep:], temperature=temperature
        )
    first = ids.shape[1] - keep
    cuts = [slice(len(r.prompt) - first, len(r.prompt) - first + len(r.completion)) for r in rows]
    return [
        credit.TokenStatistics(*(field[i, cut].float().cpu() for field in statistics))
        for i, cut in enumerate(cuts)
    ]


def _compute_rewards(reward: Reward | None, rows: list[Row], decode: Callable[..., str]) -> list[float]:
    """One reward per row: NaN where it is unknown, and 0 for all rows if there are no rewards at all."""
    if reward is None:
        found = [row.source.get("reward") for row in rows]
        if not any(isinstance(value, int | float) for value in found):
            return [0.0] * len(rows)
    else:
        names = {name for row in rows for name in row.source} - {"prompt", "completion", "reward"}
        columns = {name: [row.source.get(name) for row in rows] for name in names}
        texts = [decode(row.completion, skip_special_tokens=True) for row in rows]
        found = list(reward(completions=texts, prompts=[row.source["prompt"] for row in rows], **columns))
        if len(found) != len(rows):
            raise ValueError(
                f"the reward function returned {len(found)} numbers for {len(rows)} completions; "
                "expected one for each"
            )
    return [float("nan") if value is None else float(value) for value in found]


def _make_rollouts(
    scored: list[list[credit.TokenStatistics]], rows: list[Row], rewards: list[float]
) -> credit.Rollouts:
    torch = import_module("torch")
    pad = torch.nn.utils.rnn.pad_sequence
    flat = [statistics for batch in scored for statistics in batch]
    fields = {
        name: pad([getattr(statistics, name) for statistics in flat], batch_first=True)
        for name in credit.TokenStatistics._fields
    }
    known: dict[str, int] = {}
    groups = [known.setdefault(json.dumps(row.source["prompt"]), len(known)) for row in rows]
    mask = pad([torch.ones(len(row.completion), dtype=torch.bool) for row in rows], batch_first=True)
    return credit.Rollouts(torch.tensor(rewards), torch.tensor(groups), mask, **fields)
