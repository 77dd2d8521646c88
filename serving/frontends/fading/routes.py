"""The HTTP routes of fades and feedback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.fade.controller import FadeController
from crossfade.serving.frontends.fading import desk, operations
from crossfade.serving.tensors.strict_json import loads
from crossfade.serving.transport.calls import Access, HttpRequest, HttpResponse, Route

Parts = Mapping[str, str]
_FADE: Final = "/v2/fades/(?P<fade>[^/]+)"


def table(fades: FadeController | None) -> list[Route]:
    """The routes over ``fades``; ``None`` refuses each with what to do."""

    def start(request: HttpRequest, parts: Parts) -> Any:
        body = _body(request)
        plan = body.get("plan", "")
        if isinstance(plan, dict):
            plan = orjson.dumps(plan).decode()  # JSON is YAML
        if not isinstance(plan, str):
            raise InvalidArgument("'plan' must be an object, or the text of a fade.yaml")
        return desk.needed(fades).begin(
            *(parts["fade"], _text(body, "from"), _text(body, "to"), desk.plan(plan)),
            actor=desk.actor(request),
        )

    def act(request: HttpRequest, parts: Parts) -> Any:
        body = _body(request) if request.body else {}
        reason = _text(body, "reason") if "reason" in body else ""
        force = body.get("force", False)
        if not isinstance(force, bool):
            raise InvalidArgument("'force' must be true or false")
        return desk.needed(fades).act(
            parts["fade"], parts["action"], reason, desk.actor(request), force
        )

    def feedback(request: HttpRequest, parts: Parts) -> Any:
        given = _body(request).get("truths")
        if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
            raise InvalidArgument("'truths' must be a list of objects with 'id' and 'truth'")
        truths = desk.truths((_text(each, "id"), _text(each, "truth")) for each in given)
        outcomes = desk.needed(fades).truths(parts["model"], truths)
        return {"truths": [{"id": key, "outcome": found} for key, found in outcomes.items()]}

    read, admin = Access.READ, Access.ADMIN
    return [
        Route(
            *("GET", "/v2/fades", read),
            _json(lambda _, __: desk.needed(fades).all()),
            operations.LIST,
        ),
        Route("POST", _FADE, admin, _json(start), operations.START),
        Route(
            *("GET", _FADE, read),
            _json(lambda _, parts: desk.needed(fades).status(parts["fade"])),
            operations.STATUS,
        ),
        Route(
            *("GET", f"{_FADE}/history", read),
            _json(lambda _, parts: desk.needed(fades).history(parts["fade"])),
            operations.HISTORY,
        ),
        Route("POST", f"{_FADE}/actions/(?P<action>[a-z]+)", admin, _json(act), operations.ACT),
        Route(
            *("POST", "/v2/models/(?P<model>[^/]+)/feedback", Access.INFER),
            _json(feedback),
            operations.FEEDBACK,
        ),
    ]


def _json(
    answer: Callable[[HttpRequest, Parts], Any],
) -> Callable[[HttpRequest, Parts], HttpResponse]:
    return lambda request, parts: HttpResponse(
        body=orjson.dumps(answer(request, parts)), compressible=True
    )


def _body(request: HttpRequest) -> dict[str, Any]:
    document = loads(request.body)
    if not isinstance(document, dict):
        raise InvalidArgument("the body must be an object")
    return document


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise InvalidArgument(f"'{key}' must be a string")
    return value
