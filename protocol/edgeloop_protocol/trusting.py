"""What pydantic does for our documents, without its checks and without its 13 MB.

For a runner: all that it reads was checked by its supervisor (the lines that it made itself, the
manifest whose digest it knows), and all that it says is checked there. Invariants: for a valid
document each model reads and writes what it does by pydantic (tests/protocol/test_trusting.py
holds every model to it); what is not JSON, lacks a field or is of no known kind raises
ValidationError; nothing else is checked.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

Read = Callable[[Any], Any]

_MISSING: Any = object()
_KIND = "kind"


class ValidationError(ValueError):
    """A document that cannot be read."""

    def errors(self, **_: bool) -> list[dict[str, Any]]:
        """As pydantic's, of one problem."""
        return [{"loc": (), "msg": str(self)}]


class FieldInfo:
    def __init__(
        self,
        default: Any = _MISSING,
        *,
        default_factory: Callable[[], Any] | None = None,
        exclude_if: Callable[[Any], bool] | None = None,
        **_: Any,
    ) -> None:
        self.default, self.default_factory, self.exclude_if = default, default_factory, exclude_if

    def value(self) -> Any:
        return self.default if self.default_factory is None else self.default_factory()


class Mark:
    """What stands in an annotation for a check that is not made."""

    def __init__(self, *_: Any, **__: Any) -> None: ...


Field = FieldInfo
ConfigDict = dict
AfterValidator = Discriminator = Tag = Mark
SerializerFunctionWrapHandler = Callable[[Any], dict[str, Any]]


def field_validator(*_: Any, **__: Any) -> Callable[[Any], Any]:
    """Ours only check: one that changed a value would have to be called here too."""
    return lambda function: function


def model_validator(**_: Any) -> Callable[[Any], Any]:
    return lambda function: function


def model_serializer(**_: Any) -> Callable[[Any], Any]:
    """In mode "wrap", which is the only one that we use."""

    def marked(function: Any) -> Any:
        function.serialises = True
        return function

    return marked


class BaseModel:
    model_config: ClassVar[dict[str, Any]] = {}
    model_fields: ClassVar[dict[str, FieldInfo]] = {}
    _reads: ClassVar[dict[str, Read]] = {}
    _serialiser: ClassVar[Any] = None

    def __init_subclass__(cls) -> None:
        cls.model_fields, cls._reads = dict(cls.model_fields), dict(cls._reads)
        hints = get_type_hints(cls, include_extras=True)
        for name in inspect.get_annotations(cls):
            if get_origin(hints[name]) is not ClassVar:
                given = cls.__dict__.get(name, _MISSING)
                field = given if isinstance(given, FieldInfo) else FieldInfo(given)
                cls.model_fields[name], cls._reads[name] = field, _reader(hints[name])
        marked = [one for one in vars(cls).values() if getattr(one, "serialises", False)]
        if marked:
            cls._serialiser = marked[0]

    def __init__(self, **given: Any) -> None:
        for name, field in self.model_fields.items():
            value = given.get(name, _MISSING)
            self.__dict__[name] = field.value() if value is _MISSING else value

    @classmethod
    def model_validate_json(cls, document: bytes | str) -> Any:
        return _parsed(document, cls._read)

    @classmethod
    def _read(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            raise ValidationError(f"{cls.__name__} is not an object")
        made = cls(
            **{name: read(document[name]) for name, read in cls._reads.items() if name in document}
        )
        lacking = [name for name, value in made.__dict__.items() if value is _MISSING]
        if lacking:
            raise ValidationError(f"{cls.__name__} lacks {', '.join(lacking)}")
        return made

    def model_copy(self, *, update: Mapping[str, Any]) -> Any:
        return type(self)(**{**self.__dict__, **update})

    def model_dump(self, *, mode: Literal["json"]) -> dict[str, Any]:  # noqa: ARG002 - pydantic's
        serialiser = type(self)._serialiser
        return serialiser(self, _plain_fields) if serialiser else _plain_fields(self)

    def model_dump_json(self, **_: Any) -> str:
        document = self.model_dump(mode="json")
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))


class TypeAdapter:
    def __init__(self, annotation: Any) -> None:
        self._annotation = annotation

    def __class_getitem__(cls, _: Any) -> Any:
        return cls

    @cached_property
    def _reader(self) -> Read:
        return _reader(self._annotation)

    def validate_json(self, document: bytes | str) -> Any:
        return _parsed(document, self._reader)


def _parsed(document: bytes | str, read: Read) -> Any:
    try:
        return read(json.loads(document))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValidationError(str(error)) from error


def _as_it_is(value: Any) -> Any:
    return value


def _reader(annotation: Any) -> Read:
    """What makes a value of `annotation` from what JSON gives."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _reader(arguments[0])
    if origin in (Union, UnionType):
        return _union_reader([one for one in map(_bare, arguments) if one is not type(None)])
    if origin is tuple:
        read = _reader(arguments[0])
        return tuple if read is _as_it_is else lambda values: tuple(map(read, values))
    if origin is dict:
        read = _reader(arguments[1])
        return lambda values: {key: read(value) for key, value in values.items()}
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            return annotation._read
        if annotation in (Path, float):  # JSON says 3 for 3.0
            return annotation
    return _as_it_is


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _union_reader(members: list[Any]) -> Read:
    """One kind of value or None; or models that are told apart by `kind`, where one without a
    kind of its own takes all the others."""
    if len(members) == 1:
        read = _reader(members[0])
        return lambda value: None if value is None else read(value)
    by_kind = {one.model_fields[_KIND].default: one._read for one in members}

    def read_by_kind(value: Any) -> Any:
        kind = value.get(_KIND)
        found = by_kind.get(kind) or by_kind.get(_MISSING)
        if found is None:
            raise ValidationError(f"unknown kind {kind!r}")
        return found(value)

    return read_by_kind


def _plain_fields(model: BaseModel) -> dict[str, Any]:
    return {
        name: _plain(value)
        for name, value in model.__dict__.items()
        if not ((excluded := model.model_fields[name].exclude_if) and excluded(value))
    }


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return str(value) if isinstance(value, Path) else value
