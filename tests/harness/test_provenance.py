from __future__ import annotations

import pytest

from harness import provenance


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("run --set api_key=abc123 --seed 1", "run --set api_key=*** --seed 1"),
        ("--token s3cret -o results", "--token *** -o results"),
        ("OPENAI_API_KEY=sk-1", "OPENAI_API_KEY=***"),
        ("--password: hunter2", "--password: ***"),
        ("--backend http://me:pw@gpu1:8000", "--backend http://***@gpu1:8000"),
        ("--header x-auth=sk-live-1234 -o us", "--header x-auth=*** -o us"),
        ("run --kv-tokens 100000 --seed 1", "run --kv-tokens 100000 --seed 1"),
        ("run --set engine.max_num_batched_tokens=8192", "run --set engine.max_num_batched_tokens=8192"),
    ],
)
def test_secrets_are_redacted_and_counts_of_tokens_are_not(text: str, safe: str) -> None:
    assert provenance.redacted(text, {"OPENAI_API_KEY": "sk-live-1234", "KEYBOARD": "us"}) == safe


def test_a_study_says_what_ran_on_what_and_when() -> None:
    facts = provenance.of_study(["run", "--seed", "1"])
    assert facts["command"] == "thunderbench run --seed 1"
    assert facts["study_started_utc"].endswith("+00:00")
    assert {"thunderbench_version", "git_commit", "python_version", "platform"} <= set(facts)
