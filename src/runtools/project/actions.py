"""What a model is told of a tool's actions, from their functions' signatures and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import docstring_parser
from docstring_parser import Docstring
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from runtools.project import misfits
from runtools.project.define import Action
from runtools.sdk.shapes.definitions import ActionDefinition

# The parameter through which an action is given what the tool's `credentials` name; no model sees it.
CREDENTIALS = "credentials"


class _Untitled(GenerateJsonSchema):
    """A schema without titles, which only repeat the names in capitals.

    A default that has no JSON, as one that says "nothing was given", is the function's own: it is not told.
    """

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {  # noqa: RUF012 - as pydantic has it
        "skipped-choice",
        "non-serializable-default",
    }

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
    told = _told(action.execute)
    description = action.description or told.description or ""
    if isinstance(description, str) and not description.strip():
        raise TypeError(
            f"{_name(action.execute)} has no docstring: a model must be told what it does"
        )
    parameters = action.parameters
    if parameters is None:
        texts = {param.arg_name: param.description or "" for param in told.params}
        parameters = _schema(action.execute, texts)
    made = ActionDefinition.model_validate({"description": description, "parameters": parameters})
    if action.parameters is not None:
        misfits.check("parameters", _amiss(made.parameters))
    return made.model_copy(update={"description": made.description.strip()})


def _told(function: Callable[..., Any]) -> Docstring:
    try:
        return docstring_parser.parse(inspect.getdoc(function) or "")
    except docstring_parser.ParseError as exc:
        raise TypeError(f"{_name(function)}: its docstring cannot be read: {exc}") from None


def _amiss(schema: Mapping[str, Any]) -> Iterator[misfits.Misfit]:
    """Where what should be a JSON Schema, of the draft that it names or the latest, is none."""
    # It takes long to load, and most projects have no schema of their own.
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415
    from jsonschema.validators import validator_for  # noqa: PLC0415

    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as exc:
        yield ("parameters", *exc.absolute_path), f"it is no JSON Schema: {exc.message}"
    except RecursionError:
        yield ("parameters",), "it is nested too deeply"


def _schema(function: Callable[..., Any], texts: dict[str, str]) -> dict[str, Any]:
    """What may be given to a function: what `pydantic.validate_call` takes for it, and no more.

    A model of fields would have rules of its own about their names, which a parameter's need not keep.
    """
    parameters = list(_parameters(function))
    try:
        schema = TypeAdapter(_taking(parameters)).json_schema(schema_generator=_Untitled)
    except Exception as exc:  # pydantic has many ways to say that a type has no schema
        raise TypeError(f"{_name(function)}: {str(exc).partition(chr(10))[0]}") from exc
    said = schema["properties"]
    if len(said) != len(parameters):
        raise TypeError(f"{_name(function)}: two of its parameters have one alias")
    for parameter, one in zip(parameters, said.values(), strict=True):
        if text := texts.get(parameter.name):
            one.setdefault("description", text)
    return schema


def _taking(parameters: list[inspect.Parameter]) -> Any:
    """A function that takes just these."""

    def taking(**_: Any) -> None:
        pass

    taking.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    taking.__annotations__ = {one.name: one.annotation for one in parameters}
    return taking


def _parameters(function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """Those that a model fills in."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception as exc:  # what is written as text is evaluated, and may raise anything
        raise TypeError(f"{_name(function)}: its signature cannot be read: {exc}") from exc
    for parameter in signature.parameters.values():
        if parameter.name == CREDENTIALS:
            continue
        where = f"{_name(function)}: parameter {parameter.name!r}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{where} cannot be given by name")
        if parameter.annotation is parameter.empty:
            raise TypeError(f"{where} has no type")
        yield parameter


def _name(function: object) -> str:
    return str(getattr(function, "__name__", function))
