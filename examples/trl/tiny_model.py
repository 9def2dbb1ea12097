"""A character tokenizer and a small Qwen2 model, made and warmed up on the spot."""

import random
from collections.abc import Callable

import torch
from arithmetic import CHARACTERS, exact_match, problems
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import credit

PAD, EOS = 0, 1


def character_tokenizer(characters: str = CHARACTERS) -> PreTrainedTokenizerFast:
    """One token per character, beside <pad>, <eos> and <unk>."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **special)


def small_qwen2(
    vocab_size: int, hidden_size: int = 128, layers: int = 3, seed: int = 0, **settings: object
) -> Qwen2ForCausalLM:
    """A randomly initialised Qwen2 of some hundred thousand parameters."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=None,
        **settings,
    )
    return Qwen2ForCausalLM(config)


@torch.no_grad()
def accuracy(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    pairs: list[tuple[str, str]],
    reward: Callable[..., list[float]] = exact_match,
    *,
    sample: bool,
    max_new_tokens: int,
    batch_size: int = 256,
) -> float:
    """Mean reward of one completion per prompt, sampled at temperature 1 or greedy."""
    training = model.training
    model.eval()
    total = 0.0
    for start in range(0, len(pairs), batch_size):
        prompts, answers = zip(*pairs[start : start + batch_size], strict=True)
        encoded = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
        ids = encoded["input_ids"].to(model.device)
        generated = model.generate(
            ids,
            attention_mask=encoded["attention_mask"].to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=sample,
            pad_token_id=tokenizer.pad_token_id,
            **({"top_k": 0, "top_p": 1.0, "temperature": 1.0} if sample else {}),
        )
        texts = tokenizer.batch_decode(generated[:, ids.shape[1] :], skip_special_tokens=True)
        total += sum(reward(completions=texts, answer=list(answers)))
    model.train(training)
    return total / len(pairs)


def warm_up(task: str, path: str, target: float, seed: int, max_steps: int = 2000) -> None:
    """Supervised steps until sampling gives right answers with probability `target`; saves to `path`."""
    tokenizer = character_tokenizer()
    model = small_qwen2(len(tokenizer), seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    rng = random.Random(seed)
    with tqdm(range(max_steps), desc=f"warm-up to {target:.0%}", unit="step") as bar:
        for _ in bar:
            ids, mask = _supervised(tokenizer, problems(task, 128, rng.randrange(2**31)))
            logits = model(input_ids=ids[:, :-1], attention_mask=(ids[:, :-1] != PAD).long()).logits
            log_probs = credit.selected_log_probs(logits, ids[:, 1:]) * mask[:, 1:]
            right = log_probs.detach().sum(dim=1).exp().mean().item()
            bar.set_postfix(right=f"{right:.2f}")
            if right >= target:
                break
            (-log_probs.sum() / mask.sum()).backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def _supervised(
    tokenizer: PreTrainedTokenizerFast, batch: list[tuple[str, str]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of prompts with their answers, padded on the right, and the mask of the answers."""
    prompts = [tokenizer(prompt)["input_ids"] for prompt, _ in batch]
    answers = [[*tokenizer(answer)["input_ids"], EOS] for _, answer in batch]
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.full((len(batch), width), PAD)
    mask = torch.zeros(len(batch), width)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        start, end = len(prompt), len(prompt) + len(answer)
        ids[row, :start] = torch.tensor(prompt)
        ids[row, start:end] = torch.tensor(answer)
        mask[row, start:end] = 1.0
    return ids, mask
