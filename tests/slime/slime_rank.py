"""One rank that scores the fixed batch in several layouts: python slime_rank.py OUT LAYOUT...

A layout is JSON: sizes of parallelism, then what the run has set.
"""

import json
import os
import sys

import slime_batch
import torch
from megatron.core import parallel_state

SIZES = ("tensor_model_parallel_size", "context_parallel_size", "pipeline_model_parallel_size")


def run(layout):
    """The rows of this rank by their places; None where another rank has the last stage, or the same rows."""
    sizes = {name: layout.get(name, 1) for name in SIZES}
    parallel_state.initialize_model_parallel(**sizes)
    samples = slime_batch.make_samples()
    found = {}
    for name, settings in layout["estimators"].items():
        slime_batch.forget_process()
        args = slime_batch.name_args(
            name,
            samples,
            settings,
            context_parallel_size=sizes["context_parallel_size"],
            **slime_batch.HOOKED,
            **layout.get("args", {}),
        )
        found[name] = assign(args, samples, sizes, layout)
    parallel_state.destroy_model_parallel()
    return found


def assign(args, samples, sizes, layout):
    ranks = parallel_state.get_data_parallel_world_size()
    parallel = sizes | {
        "sequence_parallel": layout.get("sequence_parallel", False),
        "variable_seq_lengths": sizes["pipeline_model_parallel_size"] > 1,
        "moe_token_dispatcher_type": "alltoall",  # which variable lengths ask for
        "calculate_per_token_loss": sizes["context_parallel_size"] > 1,
    }
    models = slime_batch.make_models(layout.get("tied", False))
    data = slime_batch.assign(
        args,
        models,
        samples,
        rank=parallel_state.get_data_parallel_rank(),
        ranks=ranks,
        change=lambda data: add_teacher(data, samples),
        **parallel,
    )
    if not parallel_state.is_pipeline_last_stage():
        assert "advantages" not in data
        return None
    rows = slime_batch.read_rows(data, "advantages", "log_probs", "ref_log_probs")
    return rows if parallel_state.get_tensor_model_parallel_rank() == 0 else None


def add_teacher(data, samples):
    """As slime sends them: this rank's pieces."""
    from credit.adapters.slime.layout import cut

    whole = [torch.tensor(samples[place]["teacher"]) for place in data["partition"]]
    data["teacher_log_probs"] = cut(data, whole)


def main(out, *layouts):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    torch.save([run(json.loads(layout)) for layout in layouts], f"{out}/{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
