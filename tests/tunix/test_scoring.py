"""The adapter's statistics against plain forwards of Tunix's models, read in float64."""

import numpy as np
import pytest
import tiny_llama
from flax import nnx

from credit.adapters.fields import STATISTICS
from credit.adapters.tunix import statistics


def inputs(mesh, models, example, temperature=1.0, rows=("fsdp",), vocabulary=("tp",)):
    graphs, states = zip(*(nnx.split(model) for model in models), strict=True)
    ids = example.prompt_ids, example.completion_ids, example.completion_mask
    return graphs, states, ids, temperature, statistics.Ids(0, 2), statistics.Layout(mesh, rows, vocabulary)


def scored(mesh, *arguments, **named):
    with mesh:
        return statistics.score_rows(*inputs(mesh, *arguments, **named), STATISTICS)


def llamas(vocabulary=16):
    return [tiny_llama.small_llama(vocabulary, embed_dim=32, layers=1, seed=seed) for seed in (0, 1)]


@pytest.mark.parametrize(
    ("shape", "vocabulary", "layout"),
    [
        ((1, 1), 16, {}),
        ((2, 2), 16, {}),
        ((2, 2), 19, {}),  # cannot be cut in two
        ((2, 2), 16, {"rows": ("fsdp", "tp"), "vocabulary": ()}),
        ((1, 4), None, {}),
    ],
    ids=["one", "mesh", "odd", "rows", "qwen2"],
)
def test_statistics_equal_float64(mesh_of, in_float64, example, small_qwen, shape, vocabulary, layout):
    models = llamas(vocabulary) if vocabulary else [small_qwen(seed) for seed in (0, 1)]
    batch = example(5, 7, vocabulary or 16)
    expected = in_float64(models, batch, temperature=0.7)
    found = scored(mesh_of(*shape), models, batch, temperature=0.7, **layout)
    mask = np.asarray(batch.completion_mask)
    assert expected["deviation"][mask].max() > 1e-4
    assert found.keys() == expected.keys() == set(STATISTICS)
    for name in STATISTICS:
        ours = np.asarray(found[name])
        tolerance = 1e-6 if name in ("deviation", "normalized_entropy") else 5e-6
        assert np.abs(ours - expected[name])[mask].max() < tolerance, name
        assert (ours[~mask] == 0).all(), name


def test_one_device_equals_four(mesh_of, example):
    batch = example(5, 7, 16)
    one, four = (scored(mesh_of(*shape), llamas(), batch, temperature=0.7) for shape in ((1, 1), (2, 2)))
    for name, ours in one.items():
        tolerance = 1e-6 if name == "deviation" else 5e-6
        assert np.abs(np.asarray(ours) - np.asarray(four[name])).max() < tolerance


def test_equal_models_deviate_by_exactly_nothing(mesh_of, example):
    model = llamas()[0]
    found = scored(mesh_of(2, 2), (model, tiny_llama.copy_of(model)), example(5, 7, 16))
    for name in ("deviation", "extra.kl", "extra.reverse_kl"):
        assert (np.asarray(found[name]) == 0).all()
    assert (np.asarray(found["normalized_entropy"])[2] > 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 2)])
def test_memory_holds_rows_and_not_the_batch(mesh_of, example, shape):
    vocabulary, tokens = 8192, 64
    models, mesh = llamas(vocabulary), mesh_of(*shape)

    def temporaries(rows):
        with mesh:
            program = statistics.score_rows.lower(
                *inputs(mesh, models, example(rows, tokens, vocabulary))
            ).compile()
        return program.memory_analysis().temp_size_in_bytes

    few, many = temporaries(8), temporaries(32)
    row = 4 * tokens * vocabulary // shape[1]  # bytes of a row's logits on a device
    assert many - few < row
    assert many < 32 // shape[0] * row  # of one float [b, T, V]; a pair of them would be twice that


def test_a_batch_is_compiled_once(mesh_of, example):
    batch, mesh = example(5, 7, 16), mesh_of(2, 2)
    policy, reference = llamas()
    scored(mesh, (policy, reference), batch)
    size = statistics.score_rows._cache_size()
    for temperature in (1.0, 0.5):
        scored(mesh, (reference, policy), batch, temperature)
    assert statistics.score_rows._cache_size() == size


@pytest.mark.parametrize(
    ("axes", "rows", "vocabulary"),
    [(("fsdp",), ("fsdp",), ("tp",)), ((("fsdp", "tp"),), ("fsdp", "tp"), ()), ((), (), ("fsdp", "tp"))],
)
def test_rows_follow_tunix_data_axes(mesh_of, make_cluster, axes, rows, vocabulary):
    config = make_cluster((2, 2), training={"data_sharding_axis": axes}).cluster_config
    place = statistics.mesh_layout(config)
    assert (place.rows, place.vocabulary) == (rows, vocabulary)
