"""What ms-swift's trainer does in a run: each batch before and after it has advantages, and its log."""

import copy
from pathlib import Path
from types import SimpleNamespace

import torch
from swift.rlhf_trainers.utils import encode_sample


def encode(trainer, sample):
    """A copy of the sample with its encoding, which others have where ranks share sequences."""
    own = copy.deepcopy(sample)
    if own.encoded is None:
        own.encoded = encode_sample(own, trainer.template)
    return own


class Witness:
    """Within it batches of the trainer's class are kept.

    Attributes:
        batches: per generated batch its micro-batches, the rewards [N, K], and the weights of policy and
            reference with which it was scored.
        logs: the lines of the log that have a loss.
        forwards: how many rows each model scored without gradient.
        trainer: the last trainer.
    """

    def __init__(self, kind):
        self.kind, self.batches, self.logs, self.losses = kind, [], [], []
        self.trainer = self.output = None

    def __enter__(self):
        self.kept = {name: getattr(self.kind, name) for name in ("_postprocess_batch", "log", "compute_loss")}
        after, log, compute_loss = self.kept.values()
        witness = self

        def postprocess(trainer, samples, encoded):
            masks = [each["grpo_batch"].completion_mask.clone() for each in encoded]
            after(trainer, samples, encoded)
            witness.keep(trainer, samples, encoded, masks)

        def write(trainer, logs, *others, **named):
            log(trainer, logs, *others, **named)
            if "loss" in logs:
                witness.logs.append(dict(logs))

        def lose(trainer, model, inputs, *others, **named):
            loss = compute_loss(trainer, model, inputs, *others, **named)
            witness.losses.append(float(loss))
            return loss

        self.kind._postprocess_batch, self.kind.log, self.kind.compute_loss = postprocess, write, lose
        return self

    def __exit__(self, *_):
        for name, function in self.kept.items():
            setattr(self.kind, name, function)

    def keep(self, trainer, samples, encoded, masks):
        self.trainer, self.output = trainer, Path(trainer.args.output_dir)
        reference = trainer.ref_model
        self.batches.append(
            SimpleNamespace(
                training=trainer.model.training,
                samples=[encode(trainer, sample) for sample in samples],
                inputs=[dict(each["model_inputs"]) for each in encoded],
                grpo=[copy.copy(each["grpo_batch"]) for each in encoded],
                masks=masks,
                rewards=trainer._rewards_per_func.clone(),
                policy=copy.deepcopy(trainer.model).double().eval(),
                reference=None if reference is None else copy.deepcopy(reference).double().eval(),
            )
        )

    def passes(self):
        """How often each model scored a row of the batches."""
        rows = sum(len(mask) for batch in self.batches for mask in batch.masks)
        return {name: count / rows for name, count in self.forwards.items()}

    def metric(self, name):
        """The values of a metric in the log, of the steps that have it."""
        return [line[name] for line in self.logs if name in line]

    def weights(self):
        """The trained policy's weights as one vector."""
        return torch.cat([each.detach().flatten() for each in self.trainer.model.parameters()])
