"""Completions of two Hugging Face models: sampled or given, scored, and recorded (needs transformers)."""

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import credit
from credit.lens.pieces import text_pieces
from credit.lens.records import record

Reward = Callable[..., list[float | None]]


class Settings(NamedTuple):
    """How completions come about."""

    generations: int = 8
    max_new_tokens: int = 256
    temperature: float = 1.0
    batch_size: int = 8
    device: str | None = None
    seed: int = 0


class Models(NamedTuple):
    """Two models that share a tokenizer, and where they are."""

    policy: Any
    reference: Any
    tokenizer: Any
    device: str


class Row(NamedTuple):
    """A completion in ids, with the object that its prompt comes from."""

    given: dict[str, Any]
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
    settings: Settings,
) -> None:
    """Appends records of completions of the prompts to a file, scored under both models.

    An object of `prompts` with a `completion` is scored with it; for the others `generations` completions
    are sampled. Completions of one prompt are a group. Rewards come from `reward`, called as TRL does
    (completions=, prompts=, and the objects' other fields), else from the objects' `reward`, else they are
    0: weights do not depend on them.

    Raises:
        ValueError: the models' tokenizers differ, or the estimator needs what two models do not give.
    """
    models = load(model, reference, settings.device)
    import_module("torch").manual_seed(settings.seed)
    progress = import_module("tqdm.auto").tqdm
    rows = [
        row
        for given in progress(prompts, desc="completions", unit="prompt")
        for row in _generate(models, given, settings)
    ]
    batches = [rows[i : i + settings.batch_size] for i in range(0, len(rows), settings.batch_size)]
    scored = [
        _score_tokens(models, batch, settings.temperature)
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
    """Both models in the type they were saved in, without dropout."""
    transformers, torch = import_module("transformers"), import_module("torch")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer, other = (transformers.AutoTokenizer.from_pretrained(name) for name in (model, reference))
    if tokenizer.get_vocab() != other.get_vocab():
        raise ValueError(f"the tokenizers of {model} and {reference} differ; expected one vocabulary")
    read = transformers.AutoModelForCausalLM.from_pretrained
    policy, frozen = (read(name, dtype="auto").to(device).eval() for name in (model, reference))
    return Models(policy, frozen, tokenizer, device)


def _generate(models: Models, given: dict[str, Any], settings: Settings) -> Iterator[Row]:
    prompt = _encode(models.tokenizer, given["prompt"])
    if not prompt:
        raise ValueError(f"the prompt {given['prompt']!r} has no tokens to predict from")
    if isinstance(given.get("completion"), str):
        yield Row(given, prompt, models.tokenizer(given["completion"], add_special_tokens=False)["input_ids"])
        return
    torch = import_module("torch")
    ids = torch.tensor([prompt], device=models.device)
    generated = models.policy.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_return_sequences=settings.generations,
        max_new_tokens=settings.max_new_tokens,
        do_sample=True,
        temperature=settings.temperature,
        top_k=0,
        top_p=1.0,
        pad_token_id=_pad_batch(models.tokenizer),
    )
    for row in generated[:, len(prompt) :].tolist():
        yield Row(given, prompt, _cut_at_end(row, models.policy.generation_config.eos_token_id))


def _encode(tokenizer: Any, prompt: Any) -> list[int]:
    """Ids of a text, or of a chat's messages by the tokenizer's template."""
    if not isinstance(prompt, str):
        prompt = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        return list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return list(tokenizer(prompt)["input_ids"])


def _pad_batch(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def _cut_at_end(ids: list[int], end: int | list[int] | None) -> list[int]:
    """The ids up to the first end, and the end itself."""
    ends = end if isinstance(end, list) else [end]
    places = [place for place, token in enumerate(ids) if token in ends]
    return ids[: places[0] + 1] if places else ids


def _score_tokens(models: Models, rows: list[Row], temperature: float) -> list[credit.TokenStatistics]:
    """The statistics of each row's completion, from right-padded logits of both models."""
    torch = import_module("torch")
    whole = [torch.tensor([*row.prompt, *row.completion]) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(whole, batch_first=True, padding_value=_pad_batch(models.tokenizer)).to(models.device)
    attention = pad([torch.ones_like(row) for row in whole], batch_first=True).to(models.device)
    keep = ids.shape[1] - min(len(row.prompt) for row in rows)
    with torch.inference_mode():
        logits = [
            model(input_ids=ids, attention_mask=attention, logits_to_keep=keep + 1).logits[:, :-1]
            for model in (models.policy, models.reference)
        ]
        size = min(side.shape[-1] for side in logits)  # padding of the vocabulary may differ
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
    """One number per row; NaN where there is none, 0 everywhere where nobody gives any."""
    if reward is None:
        found = [row.given.get("reward") for row in rows]
        if not any(isinstance(value, int | float) for value in found):
            return [0.0] * len(rows)
    else:
        names = {name for row in rows for name in row.given} - {"prompt", "completion", "reward"}
        columns = {name: [row.given.get(name) for row in rows] for name in names}
        texts = [decode(row.completion, skip_special_tokens=True) for row in rows]
        found = list(reward(completions=texts, prompts=[row.given["prompt"] for row in rows], **columns))
        if len(found) != len(rows):
            raise ValueError(f"the reward function returned {len(found)} numbers for {len(rows)} completions")
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
    groups = [known.setdefault(json.dumps(row.given["prompt"]), len(known)) for row in rows]
    mask = pad([torch.ones(len(row.completion), dtype=torch.bool) for row in rows], batch_first=True)
    return credit.Rollouts(torch.tensor(rewards), torch.tensor(groups), mask, **fields)
