"""The OpenAPI document: what each route takes, gives and refuses, said beside the route.

FastAPI makes the document from its routes; what it would say wrongly is put right here. It answers wrong
requests with 422 where we answer 400 in our envelope, and it knows nothing of bodies that we read
ourselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from runtools import __version__
from runtools.errors import (
    Forbidden,
    IdempotencyMismatch,
    InvalidRequest,
    RateLimited,
    RunToolsError,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from runtools.sdk.shapes.events import ErrorEnvelope

_REF = "#/components/schemas/{model}"
_written_out: set[type[BaseModel]] = {ErrorEnvelope}

Error = type[RunToolsError]


def route(
    gives: Any = None,
    *errors: Error,
    status: int = 200,
    takes: type[BaseModel] | None = None,
    streams: str | Sequence[str] | None = None,
    body: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Keyword arguments of a route's decorator.

    Args:
        gives: the envelope of a success; None with ``streams``.
        errors: what the route refuses with, beside what every route may.
        takes: the JSON body's shape.
        streams: the media type of a success that is no envelope, or several to choose from.
        body: the media type of a body that is no JSON.
        headers: of a success, with what each says.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    if streams is None:
        responses[status] = {"model": gives, "description": "Done"}
    else:
        kinds = (streams,) if isinstance(streams, str) else streams
        content = {kind: {"schema": _stream(kind)} for kind in kinds}
        responses[status] = {"description": "A stream", "content": content}
    if headers:
        responses[status]["headers"] = {
            name: {"schema": {"type": "string"}, "description": what}
            for name, what in headers.items()
        }
    responses |= _refusals(
        {InvalidRequest, Unauthenticated, Forbidden, RateLimited, Unavailable, *errors}, takes
    )
    extra: dict[str, Any] = {}
    if takes is not None:
        _written_out.add(takes)
        schema = {"$ref": _REF.format(model=takes.__name__)}
        extra["requestBody"] = {
            "required": any(field.is_required() for field in takes.model_fields.values()),
            "content": {"application/json": {"schema": schema}},
        }
    if body is not None:
        binary = {"type": "string", "format": "binary"}
        extra["requestBody"] = {"required": True, "content": {body: {"schema": binary}}}
    return {
        "status_code": status,
        "response_model": None,
        "responses": responses,
        "openapi_extra": extra,
    }


def _stream(kind: str) -> dict[str, Any]:
    text = {"type": "string"}
    return text if kind == "text/event-stream" else {**text, "format": "binary"}


def _refusals(errors: set[Error], takes: type[BaseModel] | None) -> dict[int | str, dict[str, Any]]:
    if takes is not None:
        errors = errors | {TooLarge}
    by_status: dict[int, list[str]] = {500: [RunToolsError.code]}
    for error in errors:
        by_status.setdefault(error.status, []).append(error.code)
    return {status: _refusal(codes) for status, codes in sorted(by_status.items())}


def _refusal(codes: Iterable[str]) -> dict[str, Any]:
    # Written out, not as a model: FastAPI would make a validator of each, a quarter second in all.
    schema = {"$ref": _REF.format(model=ErrorEnvelope.__name__)}
    return {
        "description": ", ".join(sorted(codes)),
        "content": {"application/json": {"schema": schema}},
    }


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    made = get_openapi(
        title="RunTools",
        version=__version__,
        description="Real machines for AI agents. Every answer is `{data, meta}` or `{error}`.",
        routes=app.routes,
    )
    schemas = made["components"]["schemas"]
    _, given = models_json_schema(
        [(model, "validation") for model in sorted(_written_out, key=lambda model: model.__name__)],
        ref_template=_REF,
    )
    schemas.update(given.get("$defs", {}))
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            _correct(path, method, operation)
    made["components"]["schemas"] = dict(sorted(schemas.items()))
    made["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "rt_live_…"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    made["components"]["headers"] = dict(_TEXTS) | {
        name: {"schema": {"type": "integer"}, "description": what} for name, what in _COUNTS.items()
    }
    made["security"] = [{"bearer": []}, {"header": []}]
    return made


def _correct(path: str, method: str, operation: dict[str, Any]) -> None:
    wrong = operation["responses"].get("422", {})
    schema = wrong.get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith("HTTPValidationError"):
        del operation["responses"]["422"]
    if not path.startswith("/v1"):
        operation["security"] = []
        operation["responses"].pop("429", None)
        if path != "/metrics":  # which has a token of its own
            operation["responses"].pop("401", None)
    if method != "get":
        operation.setdefault("parameters", []).append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
                "description": "a repeat with the same key is answered, not done again; kept 24 h",
            }
        )
        again = operation["responses"].setdefault("409", _refusal([]))
        codes = {*again["description"].split(", "), IdempotencyMismatch.code} - {""}
        again["description"] = ", ".join(sorted(codes))
    for answer in operation["responses"].values():
        answer.setdefault("headers", {})["X-Request-Id"] = {"$ref": _HEADER}
    for answer in operation["responses"].values() if path.startswith("/v1") else ():
        answer["headers"] |= {name: {"$ref": _header(name)} for name in _RATES}
    if "401" in operation["responses"]:
        operation["responses"]["401"]["headers"]["WWW-Authenticate"] = {"$ref": _header("Scheme")}
    for status, answer in operation["responses"].items() if method != "get" else ():
        if status.startswith("2"):
            answer["headers"]["Idempotency-Replayed"] = {"$ref": _header("Replayed")}
    if "429" in operation["responses"]:
        operation["responses"]["429"]["headers"]["Retry-After"] = {"$ref": _header("Retry-After")}


def _header(name: str) -> str:
    return f"#/components/headers/{name}"


_HEADER = _header("RequestId")
_RATES = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_COUNTS: Mapping[str, str] = {
    "X-RateLimit-Limit": "requests that the org may make in a minute; not there without a limit",
    "X-RateLimit-Remaining": "how many are left now",
    "X-RateLimit-Reset": "when all are there again, in seconds since 1970",
    "Retry-After": "seconds after which it may be asked again",
}
_TEXTS: Mapping[str, Any] = {
    "RequestId": {
        "schema": {"type": "string"},
        "description": "also in the envelope; the caller's own where it sent one",
    },
    "Replayed": {
        "schema": {"type": "string", "enum": ["true"]},
        "description": "where this is the answer of an earlier request with the same key",
    },
    "Scheme": {"schema": {"type": "string"}, "description": "how a key is sent"},
}
