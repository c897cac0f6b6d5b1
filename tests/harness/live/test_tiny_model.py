"""Models without weights: what config.json says, and that the tokenizer is one token per byte."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import profiles
from harness.errors import SetupError
from harness.live.tiny_model import SPECIALS, TINY, dummy_config, write_dummy_model, write_tiny_model

QWEN3_8B_PARAMETERS = 8_190_735_360  # the model's own count, see harness/data/models.toml


def auto() -> Any:
    """The library that servers read models with."""
    import transformers  # noqa: PLC0415 - it comes with vLLM

    return transformers


@pytest.mark.vllm
def test_the_tiny_model_is_what_servers_are_given(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "new" / "tiny")
    assert folder == tmp_path / "new" / "tiny"
    assert json.loads((folder / "config.json").read_text()) == dict(TINY)
    config = auto().AutoConfig.from_pretrained(folder)
    assert (config.model_type, config.vocab_size, config.head_dim) == ("llama", 512, 32)
    tokenizer = auto().AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 260
    assert [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id] == [1, 2, 0]
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.vllm
def test_a_chat_becomes_turns(tmp_path: Path) -> None:
    tokenizer = auto().AutoTokenizer.from_pretrained(write_tiny_model(tmp_path))
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|begin|><|turn|>user\nhi<|end|><|turn|>assistant\nyes<|end|><|turn|>assistant\n"
    # 5 special tokens of one id each, and a token per byte
    assert len(tokenizer.encode(text)) == 6 + len("user\nhiassistant\nyesassistant\n")


@pytest.mark.vllm
def test_a_token_is_a_byte(tmp_path: Path) -> None:
    """Of any text, and back: so a prompt's tokens are counted without a server."""
    tokenizer = auto().AutoTokenizer.from_pretrained(write_tiny_model(tmp_path))

    @given(st.text())
    def check(text: str) -> None:
        for special in SPECIALS:
            text = text.replace(special, "")
        ids = tokenizer.encode(text)
        assert len(ids) == len(text.encode())
        assert all(len(SPECIALS) <= token < len(SPECIALS) + 256 for token in ids)
        assert tokenizer.decode(ids) == text

    check()


@pytest.mark.vllm
def test_a_dummy_has_the_geometry_of_its_profile(tmp_path: Path) -> None:
    config = auto().AutoConfig.from_pretrained(write_dummy_model("qwen3-8b", tmp_path))
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (36, 4096, 12288)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (32, 8, 128)
    assert (config.vocab_size, config.max_position_embeddings) == (151936, 40960)


@pytest.mark.parametrize("name", ["Qwen3-8B", "Qwen3-32B"])
def test_a_dummy_weighs_what_its_profile_says(name: str) -> None:
    """What config.json implies adds up to the weights that the simulator reckons with."""
    profile = profiles.model(name)
    config = dummy_config(profile)
    hidden, head_dim = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    attention = 2 * hidden * queries + 2 * hidden * keys + 2 * head_dim  # Qwen3 norms queries and keys
    layer = attention + 3 * hidden * config["intermediate_size"] + 2 * hidden
    weights = config["num_hidden_layers"] * layer + 2 * config["vocab_size"] * hidden + hidden
    assert 2 * weights == profile.weight_bytes


def test_the_8b_has_as_many_weights_as_published() -> None:
    assert profiles.model("Qwen3-8B").weight_bytes == 2 * QWEN3_8B_PARAMETERS


def test_a_profile_without_a_known_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        write_dummy_model("GLM-4.6-FP8", tmp_path)
    assert str(caught.value) == (
        "no config.json is known for model 'GLM-4.6-FP8'; expected one of Qwen3-8B-FP16, Qwen3-32B. "
        "Or give the folder of a checkpoint as the model."
    )


def test_without_the_tokenizers_library_the_mend_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(SetupError) as caught:
        write_tiny_model(tmp_path / "tiny")
    assert caught.value.found == "tokenizers is not installed"
    assert not (tmp_path / "tiny").exists()
