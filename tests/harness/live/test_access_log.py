"""One line of JSON per call, with times and counts; bodies only when asked for, keys never."""

import asyncio
import json

import pytest

from harness.errors import SetupError
from harness.live.access_log import AccessLog, entry_of
from tests.harness.live.scripted_server import ScriptedServer, ask, chat, gateway, usual


def ended(body, **options):
    async def run():
        async with ScriptedServer(usual) as server, gateway(server.url, **options) as front:
            await ask(front.url, "POST", "/v1/chat/completions?x=1", body, "Authorization: Bearer k")
            return front.ended[0]

    return asyncio.run(run())


def test_an_entry_says_who_where_how_long_and_how_much():
    entry = entry_of(ended(chat("p", stream=True)))
    seconds = [entry.pop(name) for name in ("hold_s", "ttft_s", "total_s")]
    assert sorted(seconds) == seconds
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "program": "p",
        "call": "p/0",
        "path": "/v1/chat/completions",
        "model": "m",
        "stream": True,
        "replica": "r0",
        "status": 200,
        "end": "finished",
        "reason": None,
        "prompt_tokens": 12,
        "output_tokens": 3,
        "cached_tokens": 8,
    }


@pytest.mark.parametrize("bodies", [True, False])
def test_lines_are_appended_and_hold_bodies_only_when_asked(tmp_path, bodies):
    file, call = tmp_path / "log", ended(chat("geheim\u2028"), keep_bodies=bodies)
    file.write_text("before\n")
    log = AccessLog(str(file), bodies=bodies)
    log.ended(call)
    log.ended(call)
    log.close()
    first, *lines = file.read_text().split("\n")[:-1]
    assert (first, len(lines)) == ("before", 2)
    assert [json.loads(line).get("body") for line in lines] == [
        chat("geheim\u2028").decode() if bodies else None
    ] * 2
    assert "Bearer" not in file.read_text()


def test_stdout_is_not_closed(capsys):
    log = AccessLog("-")
    log.ended(ended(chat()))
    log.close()
    print("still here")
    assert [line[:1] for line in capsys.readouterr().out.splitlines()] == ["{", "s"]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(SetupError, match="expected a file to append to"):
        AccessLog(str(tmp_path / "none" / "log"))


def test_lines_that_cannot_be_written_are_lost_and_said_once(caplog):
    log, call = AccessLog("/dev/full"), ended(chat())
    log.ended(call)
    log.ended(call)
    log.close()
    assert log.lost == 2
    ours = [record for record in caplog.records if record.name == "harness.live.access_log"]
    assert [record.getMessage() for record in ours] == [
        "access log /dev/full: No space left on device; lines are lost"
    ]
