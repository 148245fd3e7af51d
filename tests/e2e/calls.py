"""A client of the server, for a pod: it calls without a pause and prints each second what it has got so far, as a line of JSON.

    python -c "$(cat calls.py)" HOST PATH BODY

Three threads keep their connections, as programs do; one opens a new connection for each request.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections import Counter

KEPT = 3
ANSWERS, FAILURES = Counter[str](), Counter[str]()


def call(host: str, path: str, body: str, *, keep: bool) -> None:
    """Calls for ever."""
    connection = http.client.HTTPConnection(host, timeout=10)
    while True:
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = json.loads(answer.read())
            if answer.status == http.client.OK:
                ANSWERS[content["model_version"]] += 1
            else:
                FAILURES[f"{answer.status} {content}"] += 1
        except (OSError, http.client.HTTPException, ValueError) as error:
            FAILURES[f"{'kept' if keep else 'new'} connection: {error!r}"] += 1
            connection.close()
        if not keep:
            connection.close()
        time.sleep(0.001)


def main() -> None:
    """Starts the threads and prints the counts until it is killed."""
    for number in range(KEPT + 1):
        threading.Thread(target=call, args=sys.argv[1:], kwargs={"keep": number < KEPT}, daemon=True).start()
    while True:
        time.sleep(1)
        sys.stdout.write(json.dumps({"answers": dict(ANSWERS), "failures": dict(FAILURES)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
