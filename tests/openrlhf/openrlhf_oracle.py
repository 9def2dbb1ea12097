"""What a saved batch of OpenRLHF should hold, from plain models in float64."""

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

TAU, KAPPA, EPS = 0.1, 1.0, 1e-6


def model(folder, weights=None, zero_3=False):
    """The Hugging Face model in the precision that OpenRLHF runs it in, with saved weights."""
    made = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa")
    if weights is not None and any("lora_" in name for name in weights):
        made = get_peft_model(made, LoraConfig(r=4, lora_alpha=16, target_modules="all-linear"))
    if weights is not None:
        unknown = made.load_state_dict(weights, strict=False).unexpected_keys
        assert not unknown
    for parameter in made.parameters():
        parameter.data = parameter.data.bfloat16()
    # Under ZeRO-3 DeepSpeed casts the rotary embedding's buffers too.
    return made.bfloat16().eval() if zero_3 else made.eval()


@torch.no_grad()
def log_probs(network, experience):
    """log p [B, A, V] in float64 of the logits of one micro-batch."""
    attention = experience["attention_mask"]
    positions = (attention.cumsum(-1) - 1).masked_fill(attention == 0, 1)
    logits = network(experience["sequences"], attention_mask=attention, position_ids=positions).logits
    return (logits[:, :-1].double() / 0.8).log_softmax(-1)


def recomputed(batch, policy, reference, tau):
    """DGPO's advantages of every experience, from its definition, in float64."""
    rewards = np.concatenate([e["rewards"].double().numpy() for e in batch["experiences"]])
    groups = np.concatenate([e["index"] for e in batch["experiences"]]) // 4
    of_row = {}
    for group in set(groups):
        own = rewards[groups == group]
        of_row[group] = own.mean(), own.std(ddof=1) + EPS
    a = np.array([(r - of_row[g][0]) / of_row[g][1] for r, g in zip(rewards, groups, strict=True)])
    rows = iter(a)
    for experience in batch["experiences"]:
        lp, lq = log_probs(policy, experience), log_probs(reference, experience)
        d = ((lp / 2).exp() - (lq / 2).exp()).square().sum(-1) / 2
        h = -(lp.exp() * lp).sum(-1) / np.log(lp.shape[-1])
        mask = experience["action_mask"].bool()
        score = (d * h**KAPPA / tau).masked_fill(~mask, -float("inf"))
        weights = score.softmax(-1) * mask.sum(-1, keepdim=True)
        yield torch.tensor([next(rows) for _ in mask])[:, None] * weights


def largest_error(batch, policy, reference, tau=TAU):
    """Of the advantages, over a batch; they are exactly 0 outside of the mask."""
    largest = 0.0
    for experience, expected in zip(
        batch["experiences"], recomputed(batch, policy, reference, tau), strict=True
    ):
        mask = experience["action_mask"].bool()
        assert (experience["advantages"][~mask] == 0).all()
        largest = max(largest, (experience["advantages"] - expected)[mask].abs().max().item())
    return largest


def expected_kl(batch, policy, reference):
    """The mean of the exact KL(p || q) over the batch's action tokens, in float64."""
    each = []
    for experience in batch["experiences"]:
        lp, lq = log_probs(policy, experience), log_probs(reference, experience)
        each.append((lp.exp() * (lp - lq)).sum(-1)[experience["action_mask"].bool()])
    return torch.cat(each).mean().item()


def sampling_error(batch, network):
    """The mean distance of the log-probs that the engine sampled with from those of a model.

    The first token of a response is left out, since OpenRLHF asks for one at least (min_tokens): it was sampled
    as if it could not be the end.
    """
    each = []
    for experience in batch["experiences"]:
        mask = experience["action_mask"].bool()
        mask &= mask.cumsum(dim=-1) > 1
        chosen = log_probs(network, experience).gather(-1, experience["sequences"][:, 1:, None])[..., 0]
        each.append((experience["rollout_log_probs"] - chosen)[mask].abs())
    return torch.cat(each).mean().item()


def metric(batch, name):
    values = torch.cat([experience["info"][f"credit/{name}"] for experience in batch["experiences"]])
    assert values.unique().numel() == 1
    return values[0].item()
