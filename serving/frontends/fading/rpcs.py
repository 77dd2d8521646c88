"""The RPC tables of ``crossfade.Fading`` and ``crossfade.Feedback``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from crossfade.serving.fade.controller import FadeController
from crossfade.serving.frontends.fading import desk
from crossfade.serving.transport.calls import Access, Buffer, Call, Rpc, each
from crossfade.serving.wire import crossfade as wire
from crossfade.serving.wire.fields import parse

FADING: Final = "crossfade.Fading"
FEEDBACK: Final = "crossfade.Feedback"


def table(fades: FadeController | None) -> list[Rpc[Any, Any]]:
    """The RPCs over ``fades``; ``None`` refuses each with what to do."""

    def start(request: Any, call: Call) -> Any:
        return desk.needed(fades).begin(
            *(request.name, request.primary, request.candidate, desk.plan(request.plan)),
            actor=desk.actor(call),
        )

    def act(request: Any, call: Call) -> Any:
        return desk.needed(fades).act(
            request.name, request.action, request.reason, desk.actor(call), request.force
        )

    def record(request: Any, _: Call) -> Any:
        given = desk.truths((truth.request_id, truth.truth) for truth in request.truths)
        outcomes = desk.needed(fades).truths(request.model_name, given)
        answer = wire.RecordResponse()
        for request_id, outcome in outcomes.items():
            answer.truths.add(request_id=request_id, outcome=outcome.upper())
        return answer

    def document(answer: Callable[[Any, Call], Any]) -> Callable[[Any, Call], Any]:
        return lambda request, call: wire.FadeDocument(
            json=orjson.dumps(answer(request, call)).decode()
        )

    read, admin = Access.READ, Access.ADMIN
    return [
        _rpc(f"/{FADING}/Start", admin, wire.StartFadeRequest, document(start)),
        _rpc(f"/{FADING}/Act", admin, wire.ActOnFadeRequest, document(act)),
        _rpc(
            *(f"/{FADING}/Status", read, wire.FadeRequest),
            document(lambda request, _: desk.needed(fades).status(request.name)),
        ),
        _rpc(
            *(f"/{FADING}/History", read, wire.FadeRequest),
            document(lambda request, _: desk.needed(fades).history(request.name)),
        ),
        _rpc(
            *(f"/{FADING}/List", read, wire.ListFadesRequest),
            document(lambda _, __: desk.needed(fades).all()),
        ),
        _rpc(f"/{FEEDBACK}/Record", Access.INFER, wire.RecordRequest, record),
    ]


def _rpc(
    path: str, access: Access, request: Any, answer: Callable[[Any, Call], Any]
) -> Rpc[Any, Any]:
    def decode(message: Buffer) -> Any:
        return parse(request, message)

    def encode(response: Any) -> bytes:
        data: bytes = response.SerializeToString()
        return data

    return Rpc(path, access, decode, each(answer), encode)
