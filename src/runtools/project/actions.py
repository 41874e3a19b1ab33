"""What a model is told of a tool's actions, from their functions' signatures and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import docstring_parser
from pydantic import Field, create_model
from pydantic.json_schema import GenerateJsonSchema

from runtools.project.define import Action
from runtools.sdk.shapes.definitions import ActionDefinition

# The parameter through which an action is given what the tool's `credentials` name; no model sees it.
CREDENTIALS = "credentials"


class _Untitled(GenerateJsonSchema):
    """A schema without titles, which only repeat the names in capitals."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        return False


def described(action: Action) -> ActionDefinition:
    """The action as a model is told of it.

    Raises:
        TypeError: the signature cannot become a schema; the message says which parameter and why.
        pydantic.ValidationError: description or schema are malformed.
    """
    if not callable(action.execute):
        raise TypeError(f"{action.execute!r} is no function")
    told = docstring_parser.parse(inspect.getdoc(action.execute) or "")
    description = (action.description or told.description or "").strip()
    if not description:
        raise TypeError(
            f"{_name(action.execute)} has no docstring: a model must be told what it does"
        )
    parameters = action.parameters
    if parameters is None:
        texts = {param.arg_name: param.description or "" for param in told.params}
        parameters = _schema(action.execute, texts)
    return ActionDefinition.model_validate(
        {"description": description, "parameters": dict(parameters)}
    )


def _schema(function: Callable[..., Any], texts: dict[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, hint, default in _parameters(function):
        text = texts.get(name)
        fields[name] = (hint, Field(default, description=text) if text else default)
    try:
        model = create_model(_name(function), __config__={"extra": "forbid"}, **fields)
        schema = model.model_json_schema(schema_generator=_Untitled)
    except Exception as exc:  # pydantic has many ways to say that a type has no schema
        raise TypeError(f"{_name(function)}: {exc}") from exc
    schema.pop("title", None)
    return {"type": "object", "properties": {}, **schema}


def _parameters(function: Callable[..., Any]) -> Iterator[tuple[str, Any, Any]]:
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, ValueError) as exc:
        raise TypeError(f"{_name(function)}: its signature cannot be read: {exc}") from None
    for parameter in signature.parameters.values():
        if parameter.name == CREDENTIALS:
            continue
        where = f"{_name(function)}: parameter {parameter.name!r}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{where} cannot be given by name")
        if parameter.annotation is parameter.empty:
            raise TypeError(f"{where} has no type")
        default = ... if parameter.default is parameter.empty else parameter.default
        yield parameter.name, parameter.annotation, default


def _name(function: object) -> str:
    return str(getattr(function, "__name__", function))
