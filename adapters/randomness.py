"""Whether forwards of a model of transformers are random in training, as dropout makes them."""

from collections.abc import Iterator, Mapping
from typing import Any

RANDOM = ("dropout", "pdrop", "jitter", "drop_path", "layerdrop")  # parts of names of what makes them so


def is_random(model: Any, config: Any, adapted: bool, neftune_noise_alpha: float | None) -> bool:
    """Whether a forward of the model, in the mode that it is in, is random.

    Args:
        model: the model, or what accelerate and PEFT put around it.
        config: of the model of transformers within it.
        adapted: whether its adapter takes part; without it, the adapter's dropout does not count.
        neftune_noise_alpha: the option of transformers' trainer, which adds noise to embeddings in training.
    """
    layers = (layer for name, layer in model.named_modules() if adapted or "lora_dropout" not in name)
    if any(layer.training and any(number > 0 for number in _list_rates(layer)) for layer in layers):
        return True
    # Attention drops out, routers jitter, and towers drop paths by numbers of the config.
    numbers = [*_list_noise(config.to_dict()), neftune_noise_alpha or 0.0]
    return model.training and any(number > 0 for number in numbers)


def _list_rates(layer: Any) -> Iterator[float]:
    """The rates by which a layer of its own drops something: PEFT's tuners have one for each adapter."""
    own = vars(layer)
    if "dropout" in type(layer).__name__.lower() and isinstance(own.get("p"), float):
        yield own["p"]
    yield from _list_noise(own)


def _list_noise(settings: Mapping[str, Any], named: bool = False) -> Iterator[float]:
    """The numbers that are named after what makes a forward random, in settings and those within them."""
    for name, value in settings.items():
        random = named or any(part in str(name) for part in RANDOM)
        if isinstance(value, Mapping):
            yield from _list_noise(value, random)
        elif isinstance(value, float) and random:
            yield value
