"""The base class of everything that is configured by name: estimators, losses and schedules."""

from collections.abc import Mapping
from inspect import cleandoc
from textwrap import fill
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo


class Settings(BaseModel):
    """Frozen, hashable settings, each described by the string below it.

    The descriptions appear in `model_json_schema()` and in `help()`. A setting that the class does not have
    is an error that lists those that it has. A number is finite unless its field says allow_inf_nan=True.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        ser_json_inf_nan="strings",
    )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, which are validated; pydantic's own takes any."""
        if not update:
            return super().model_copy(deep=deep)
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self).model_validate(given | dict(update))

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        append_fields("Settings", cls)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_settings(cls, values: Any) -> Any:
        unknown = set(values) - set(cls.model_fields) if isinstance(values, dict) else set()
        if unknown:
            raise ValueError(
                f"unknown setting {', '.join(sorted(map(repr, unknown)))}; "
                f"{cls.__name__} has {', '.join(sorted(cls.model_fields))}"
            )
        return values


# An attribute of FieldInfo from pydantic 2.10 on: whether its default is computed from other settings.
TAKES_DATA = "default_factory_takes_validated_data"


def refuse_without_effect(settings: Settings, reasons: Mapping[str, str | None]) -> None:
    """A ValueError for a setting that is not its default and has a reason why it has no effect.

    A reason of None means that it has one. Defaults pass, so that what `model_dump` writes can be read.
    """
    for name, reason in reasons.items():
        field = type(settings).model_fields[name]
        if reason is None or field.is_required() or getattr(field, TAKES_DATA, False):
            continue
        value, default = getattr(settings, name), field.get_default(call_default_factory=True)
        if value != default:
            raise ValueError(
                f"{name}={value!r} has no effect {reason}; leave it out, or, where it is an estimator's own, "
                f"set it to {default!r}"
            )


def append_fields(title: str, kind: type[BaseModel]) -> None:
    """Adds a section to the docstring of a model: the name, default and description of each field."""
    described = {name: field for name, field in kind.model_fields.items() if field.description}
    if described and kind.__doc__:  # it is None under python -OO
        lines = [_describe_field(name, field) for name, field in described.items()]
        kind.__doc__ = "\n".join([cleandoc(kind.__doc__), "", f"{title}:", *lines])


def _describe_field(name: str, field: FieldInfo) -> str:
    default = "" if field.is_required() else f" (default {_write_default(field.default)})"
    text = f"{name}{default}: {' '.join((field.description or '').split())}"
    return fill(text, 100, initial_indent=" " * 4, subsequent_indent=" " * 8, break_on_hyphens=False)


def _write_default(value: Any) -> str:
    """As Python writes it; of nested settings only those that differ from their own defaults."""
    if not isinstance(value, BaseModel):
        return repr(value)
    changed = value.model_dump(exclude_defaults=True)
    return f"{type(value).__name__}({', '.join(f'{name}={each!r}' for name, each in changed.items())})"
