"""Does what the path of a request says."""

import os

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam


def answer(words: list[str]) -> tuple[int, str]:
    match words:
        case ["say", text]:
            return 200, text
        case ["env", name]:
            return 200, os.environ.get(name, "unset")
        case ["raise"]:
            raise ValueError("asked to")
        case _:
            return 404, "no such deed"


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        status, text = answer((request.path_with_query() or "/").split("/")[1:])
        response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain")]))
        response.set_status_code(status)
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(text.encode())
        OutgoingBody.finish(body, None)
