"""An S3 server whose conditional writes are as atomic as those of S3 itself; takes the options of ``moto.server``.

Moto looks whether an object is there, and writes it a moment later, in a thread for each request: of two writers that
come at once both are told that they were the first, and what one of them wrote is lost.
"""

from __future__ import annotations

import threading
from typing import Any

from moto.s3.responses import S3Response
from moto.server import main

_writing = threading.Lock()
_put = S3Response.put_object


def _one_at_a_time(self: S3Response) -> Any:
    with _writing:
        return _put(self)


if __name__ == "__main__":
    S3Response.put_object = _one_at_a_time  # type: ignore[method-assign]
    main()
