"""Puts Vertex AI's two routes beside those of the other contracts, on one port."""

from __future__ import annotations

from collections.abc import Sequence

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.config.vertex_config import VertexConfig
from crossfade.serving.dataplane.door import DataPlane
from crossfade.serving.frontends.vertex import routes as vertex
from crossfade.serving.transport.calls import Access, HttpRequest, HttpResponse, Route
from crossfade.serving.transport.http_router import HttpRouter


def beside(others: Sequence[Route], plane: DataPlane, config: VertexConfig) -> list[Route]:
    """All routes; those of Vertex AI come first, as their paths are literal and anywhere.

    Raises:
        InvalidArgument: Vertex AI is to have the path of another route.
    """
    router = HttpRouter(others)

    def infer(request: HttpRequest) -> HttpResponse:
        route, groups = router.find("POST", request.path)
        return route.handle(request, groups)  # of the access that has been checked

    taken = {(route.method, route.pattern): route for route in others}
    own: list[Route] = []
    for route in vertex.table(plane, config, infer):
        twin = taken.get((route.method, route.pattern))
        if twin is None:
            own.append(route)
        elif twin.access is not Access.PROBE:
            raise InvalidArgument(f"{route.pattern} cannot be a route of Vertex AI: it is taken")
    return [*own, *others]  # of two probes with one path the general one answers
