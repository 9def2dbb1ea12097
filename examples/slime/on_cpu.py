"""Trains a tiny language model as slime would, on a CPU, with the estimator of credit.yaml.

    python examples/slime/on_cpu.py
    python examples/slime/on_cpu.py --estimator grpo --rollouts 20

It needs torch, megatron-core, transformers and PyYAML (constraints/slime.txt). Sampling, and what slime does
around the two functions of credit's, stand in for slime, which needs GPUs; the functions, the model and the
schedules are credit's and megatron-core's own. The reward is the share of even tokens in a response.
"""

import argparse
from pathlib import Path

import torch
import transformers
from megatron.core import mpu
from slime_actor import Actor, make_args, make_rollout_data

HERE = Path(__file__).resolve().parent
PROMPTS, SAMPLES, PROMPT_LENGTH, LENGTH = 4, 8, 4, 12
VOCABULARY = 44  # which Megatron pads to 48
SIZES = {
    "vocab_size": VOCABULARY,
    "n_samples_per_prompt": SAMPLES,
    "rollout_batch_size": PROMPTS,
    "global_batch_size": PROMPTS * SAMPLES // 2,
}


def make_model(**changed):
    """A small Qwen2 with random weights; `changed` are settings of its config."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
    }
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes | changed))


def start_megatron():
    """One process that is the only rank of everything."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    mpu.initialize_model_parallel()


@torch.no_grad()
def sample_batch(model, generator):
    """Prompts with several responses each, sampled from the model; slime's engine does it otherwise."""
    prompts = torch.randint(VOCABULARY, (PROMPTS, PROMPT_LENGTH), generator=generator)
    ids = prompts.repeat_interleave(SAMPLES, dim=0)
    for _ in range(LENGTH):
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        logits = model(input_ids=ids, position_ids=positions, attention_mask=None)
        chances = logits[:, -1, :VOCABULARY].softmax(dim=-1)
        ids = torch.cat([ids, chances.multinomial(1, generator=generator)], dim=1)
    rewards = (ids[:, PROMPT_LENGTH:] % 2 == 0).float().mean(dim=1)
    return [
        {"tokens": row.tolist(), "mask": [1] * LENGTH, "reward": reward}
        for row, reward in zip(ids, rewards.tolist(), strict=True)
    ]


def run(args, rollouts, learning_rate=0.01, seed=0):
    """Yields the mean reward, and slime's fields with the advantages, of each rollout."""
    hf = make_model()
    actor = Actor(args, hf, hf)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(actor.model.parameters(), learning_rate)
    for _ in range(rollouts):
        samples = sample_batch(actor.model.module.eval(), generator)
        data = make_rollout_data(samples, micro_batches=4, steps=2)
        actor.score(data)
        yield sum(sample["reward"] for sample in samples) / len(samples), data
        actor.train(data, optimizer)


def read_flags():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--estimator", default="dgpo", help="an estimator of credit's (default: %(default)s)")
    parser.add_argument("--rollouts", type=int, default=10, help="how many batches (default: %(default)s)")
    return parser.parse_args()


def main():
    flags = read_flags()
    start_megatron()
    args = make_args(HERE / "credit.yaml", num_rollout=flags.rollouts, **SIZES)
    if flags.estimator != "dgpo":
        args.custom_advantage_function_path = f"credit.adapters.slime.{flags.estimator}"
        args.credit = {}
    for number, (reward, data) in enumerate(run(args, flags.rollouts)):
        metrics = {name: float(value) for name, value in data.items() if name.startswith("credit/")}
        shown = ("credit/deviation_mean", "credit/weight_max", "credit/effective_token_fraction")
        values = [f"{name} {metrics[name]:.3g}" for name in shown if name in metrics]
        print(f"rollout {number}: reward {reward:.3f}", *values, sep="  ")


if __name__ == "__main__":
    main()
