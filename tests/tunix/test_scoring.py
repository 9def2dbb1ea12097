"""The adapter's statistics against plain forwards of Tunix's models, read in float64."""

import numpy as np
import pytest
import tiny_llama
from flax import nnx
from tunix.models.qwen2 import model as qwen2

import credit
from credit.adapters.tunix import statistics

FIELDS = credit.TokenStatistics._fields


def scored(mesh, models, example, temperature=1.0, vocabulary=("tp",)):
    graphs, states = zip(*(nnx.split(model) for model in models), strict=True)
    rows = example.prompt_ids, example.completion_ids, example.completion_mask
    place = statistics.Layout(mesh, ("fsdp",), vocabulary)
    with mesh:
        return statistics.scored(graphs, states, rows, temperature, statistics.Ids(0, 2), place)


def small_qwen2(vocabulary, seed):
    config = qwen2.ModelConfig(
        num_layers=1,
        vocab_size=vocabulary,
        embed_dim=32,
        hidden_dim=64,
        num_heads=4,
        head_dim=8,
        num_kv_heads=2,
        rope_theta=10_000,
        norm_eps=1e-5,
        use_tied_embedding=True,
    )
    return qwen2.Qwen2(config, rngs=nnx.Rngs(params=seed))


def small_llama(vocabulary, seed):
    return tiny_llama.small_llama(vocabulary, embed_dim=32, layers=1, seed=seed)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 4)])
@pytest.mark.parametrize(
    ("make", "vocabulary"), [(small_llama, 16), (small_llama, 19), (small_qwen2, 16)], ids=["llama", "odd", "qwen2"]
)
def test_statistics_equal_float64_on_every_mesh(mesh_of, in_float64, example, shape, make, vocabulary):
    models = make(vocabulary, 0), make(vocabulary, 1)
    batch = example(5, 7, vocabulary)
    expected = in_float64(models, batch, temperature=0.7)
    found = scored(mesh_of(*shape), models, batch, temperature=0.7)
    mask = np.asarray(batch.completion_mask)
    assert expected["deviation"][mask].max() > 1e-4
    for name in FIELDS:
        ours = np.asarray(getattr(found, name))
        tolerance = 1e-6 if name in ("deviation", "normalized_entropy") else 3e-6
        assert np.abs(ours - expected[name])[mask].max() < tolerance, name
        assert (ours[~mask] == 0).all(), name


def test_equal_models_deviate_by_exactly_nothing(mesh_of, example):
    models = small_llama(16, 0), tiny_llama.copy_of(small_llama(16, 0))
    found = scored(mesh_of(2, 2), models, example(4, 7, 16))
    assert (np.asarray(found.deviation) == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 2)])
def test_memory_holds_rows_and_not_the_batch(mesh_of, example, shape):
    vocabulary, tokens = 8192, 64
    models = [small_llama(vocabulary, seed) for seed in (0, 1)]
    graphs, states = zip(*(nnx.split(model) for model in models), strict=True)
    mesh = mesh_of(*shape)
    place = statistics.Layout(mesh, ("fsdp",), ("tp",))

    def temporaries(rows):
        batch = example(rows, tokens, vocabulary)
        given = (batch.prompt_ids, batch.completion_ids, batch.completion_mask), 1.0, statistics.Ids(0, 2), place
        with mesh:
            program = statistics.scored.lower(graphs, states, *given).compile()
        return program.memory_analysis().temp_size_in_bytes

    few, many = temporaries(8), temporaries(32)
    row = 4 * tokens * vocabulary // shape[1]
    assert many - few < row
    assert few < 8 // shape[0] * row  # less than the logits of one model for this device's rows


def test_a_batch_is_compiled_once(mesh_of, example):
    models = small_llama(16, 0), small_llama(16, 1)
    batch = example(4, 6, 16)
    mesh = mesh_of(2, 2)
    scored(mesh, models, batch)
    size = statistics.scored._cache_size()
    for seed, temperature in ((2, 1.0), (3, 0.5)):
        scored(mesh, (small_llama(16, seed), models[1]), batch, temperature)
    assert statistics.scored._cache_size() == size


@pytest.mark.parametrize(
    ("axes", "rows", "vocabulary"),
    [(("fsdp",), ("fsdp",), ("tp",)), ((("fsdp", "tp"),), ("fsdp", "tp"), ()), ((), (), ("fsdp", "tp"))],
)
def test_rows_follow_tunix_data_axes(mesh_of, make_cluster, axes, rows, vocabulary):
    config = make_cluster((2, 2), training={"data_sharding_axis": axes}).cluster_config
    place = statistics.layout(config)
    assert (place.rows, place.vocabulary) == (rows, vocabulary)


def test_every_device_may_look_at_rows_of_its_own(mesh_of, in_float64, example):
    models = small_llama(16, 0), small_llama(16, 1)
    batch = example(6, 5, 16)
    mesh = mesh_of(2, 2)
    graphs, states = zip(*(nnx.split(model) for model in models), strict=True)
    rows = batch.prompt_ids, batch.completion_ids, batch.completion_mask
    with mesh:
        place = statistics.Layout(mesh, ("fsdp", "tp"), ())
        found = statistics.scored(graphs, states, rows, 1.0, statistics.Ids(0, 2), place)
    expected = in_float64(models, batch)["deviation"]
    mask = np.asarray(batch.completion_mask)
    assert np.abs(np.asarray(found.deviation) - expected)[mask].max() < 1e-6
