"""A character tokenizer and a small Llama for Tunix, made and warmed up on the spot."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import optax
from arithmetic import CHARACTERS, problems
from flax import nnx
from tqdm.auto import tqdm
from tunix.models.llama3.model import Llama3, ModelConfig
from tunix.sft import utils

import credit

PAD, BOS, EOS = 0, 1, 2


class CharacterTokenizer:
    """One token per character: the five methods that Tunix asks of a tokenizer."""

    def __init__(self, characters: str = CHARACTERS) -> None:
        self.ids = {character: i + 3 for i, character in enumerate(characters)}
        self.characters = {i: character for character, i in self.ids.items()}

    def __len__(self) -> int:
        return len(self.ids) + 3

    def encode(self, text: str, **_: object) -> list[int]:
        return [self.ids[character] for character in text]

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(self.characters.get(int(i), "") for i in ids)

    def pad_id(self) -> int:
        return PAD

    def bos_id(self) -> int:
        return BOS

    def eos_id(self) -> int:
        return EOS


def small_llama(vocab_size: int, embed_dim: int = 128, layers: int = 3, seed: int = 0) -> Llama3:
    """A randomly initialised Llama of some hundred thousand parameters."""
    config = ModelConfig(
        num_layers=layers,
        vocab_size=vocab_size,
        embed_dim=embed_dim,
        hidden_dim=4 * embed_dim,
        num_heads=4,
        head_dim=embed_dim // 4,
        num_kv_heads=4,
        rope_theta=10_000,
        norm_eps=1e-5,
    )
    model = Llama3(config, rngs=nnx.Rngs(params=seed))
    draw(model, embed_dim**-0.5, seed)
    return model


def draw(model: nnx.Module, scale: float, seed: int) -> None:
    """Draws all matrices anew: Tunix, which fills its models from checkpoints, leaves the MLPs at zero."""
    leaves, tree = jax.tree.flatten(nnx.state(model, nnx.Param))
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [
        scale * jax.random.normal(key, leaf.shape, leaf.dtype) if leaf.ndim > 1 else leaf
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    nnx.update(model, jax.tree.unflatten(tree, drawn))


def copy_of(model: nnx.Module) -> nnx.Module:
    """A model with weights of its own, for a reference that stays as it is."""
    graph, state = nnx.split(model)
    return nnx.merge(graph, jax.tree.map(jnp.copy, state))


def warm_up(model: Llama3, task: str, target: float, seed: int, max_steps: int = 2000) -> None:
    """Supervised steps until sampling gives right answers with probability `target`."""
    tokenizer, rng = CharacterTokenizer(), random.Random(seed)
    optimizer = nnx.Optimizer(model, optax.adamw(1e-3, weight_decay=0.01), wrt=nnx.Param)
    with tqdm(range(max_steps), desc=f"warm-up to {target:.0%}", unit="step") as bar:
        for _ in bar:
            right = float(
                _step(model, optimizer, *_supervised(tokenizer, problems(task, 128, rng.randrange(2**31))))
            )
            bar.set_postfix(right=f"{right:.2f}")
            if right >= target:
                break


@nnx.jit
def _step(model: Llama3, optimizer: nnx.Optimizer, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """One supervised step; returns the probability of a right answer before it."""

    def loss(model: Llama3) -> tuple[jax.Array, jax.Array]:
        present = ids != PAD
        logits, _ = model(
            ids, utils.build_positions_from_mask(present), None, utils.make_causal_attn_mask(present)
        )
        log_probs = credit.selected_log_probs(logits[:, :-1], ids[:, 1:]) * mask[:, 1:]
        return -log_probs.sum() / mask.sum(), jnp.exp(log_probs.sum(axis=1)).mean()

    (_, right), gradient = nnx.value_and_grad(loss, has_aux=True)(model)
    optimizer.update(model, gradient)
    return right


def _supervised(tokenizer: CharacterTokenizer, batch: list[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of prompts, as Tunix's sampler begins them, with their answers; and the answers' mask."""
    prompts = [[BOS, *tokenizer.encode(prompt)] for prompt, _ in batch]
    answers = [[*tokenizer.encode(answer), EOS] for _, answer in batch]
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids, mask = np.full((len(batch), width), PAD), np.zeros((len(batch), width), np.float32)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, : len(prompt) + len(answer)] = prompt + answer
        mask[row, len(prompt) : len(prompt) + len(answer)] = 1.0
    return ids, mask
