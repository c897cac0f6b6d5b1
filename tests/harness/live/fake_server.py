"""Started as a process: answers `/health`, and has a child in a session of its own, as engines may.

    fake_server.py PORT BEHAVIOUR

`well`: answers. `deaf`: answers, and neither of the two heeds SIGTERM. `silent`: never answers.
`dies`: writes what vLLM would write, and exits with 3. `leaves`: exits at once, the child stays.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

LAST_WORDS = """\
(APIServer pid=1) WARNING 11-21 06:29:06 [system_utils.py:255] may cause `OSError: [Errno 24] Too many`
(EngineCore pid=2) ERROR 11-21 06:29:16 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=2) ERROR 11-21 06:29:16 [core.py:1510]     raise ValueError(
(EngineCore pid=2) ERROR 11-21 06:29:16 [core.py:1510] ValueError: No common block size for 16.
ValueError: No common block size for 16.
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
resource_tracker.py:254: UserWarning: There appear to be 1 leaked shared_memory objects
"""
CHILD = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # the name http.server wants
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def main(port: int, behaviour: str) -> None:
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", CHILD], start_new_session=True, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()  # it heeds no SIGTERM from here on
    print("loading the model", flush=True)
    if behaviour == "dies":
        print(LAST_WORDS, end="", flush=True)
        sys.exit(3)
    if behaviour == "leaves":
        sys.exit(0)
    if behaviour == "silent":
        signal.pause()
    HTTPServer(("127.0.0.1", port), Healthy).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
