"""Whether forwards of a model of transformers are random in training, as dropout makes them."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch.nn.modules.dropout import _DropoutNd

RANDOM = ("dropout", "pdrop", "jitter", "drop_path")


def is_random(model: Any, config: Any, adapted: bool, neftune_noise_alpha: float | None) -> bool:
    """Whether a forward of the model, in the mode that it is in, is random.

    Args:
        model: the model, or what accelerate and PEFT put around it.
        config: of the model of transformers within it.
        adapted: whether its adapter takes part; without it, the adapter's dropout does not count.
        neftune_noise_alpha: the option of transformers' trainer, which adds noise to embeddings in training.
    """
    layers = (
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, _DropoutNd) and (adapted or "lora_dropout" not in name)
    )
    if any(layer.training and layer.p > 0 for layer in layers):
        return True
    # Attention drops out, routers jitter, and towers drop paths by numbers of the config.
    numbers = [*_list_noise(config.to_dict()), neftune_noise_alpha or 0.0]
    return model.training and any(number > 0 for number in numbers)


def _list_noise(settings: Mapping[str, Any]) -> Iterator[float]:
    """The numbers of a config, and of those within it, that are named after what makes a forward random."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _list_noise(value)
        elif isinstance(value, float) and any(part in name for part in RANDOM):
            yield value
