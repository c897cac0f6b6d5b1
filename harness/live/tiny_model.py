"""Models without weights, for servers that start with `--load-format dummy`: nothing is downloaded.

`write_tiny_model` makes one small enough for a CPU; `write_dummy_model` one with the geometry of a real
checkpoint, so that a GPU does the work that the checkpoint would cause. Both get the same tokenizer: one
token per byte, and the special tokens of a chat. Its ids stay far below any vocabulary, which a server
never notices: it computes with as many rows as config.json says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from harness.errors import SetupError
from harness.profiles import ModelProfile, model

BEGIN, END_OF_TURN, PAD, HEADER = "<|begin|>", "<|end|>", "<|pad|>", "<|turn|>"
SPECIALS = (PAD, BEGIN, END_OF_TURN, HEADER)  # ids 0 to 3; the 256 bytes follow
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    f"{HEADER}{{{{ message['role'] }}}}\n{{{{ message['content'] }}}}{END_OF_TURN}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{HEADER}assistant\n{{% endif %}}"
)

# Two layers of 128 columns decode in milliseconds on one core. 65,536 positions hold the longest contexts
# of coding agents.
TINY: Mapping[str, Any] = MappingProxyType(
    {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 65536,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": SPECIALS.index(BEGIN),
        "eos_token_id": SPECIALS.index(END_OF_TURN),
        "pad_token_id": SPECIALS.index(PAD),
    }
)


class _Rest(NamedTuple):
    """What config.json says beyond a `ModelProfile`."""

    architecture: str
    model_type: str
    intermediate_size: int
    max_positions: int
    rope_theta: float
    rms_norm_eps: float


# config.json of Qwen/Qwen3-8B and Qwen/Qwen3-32B; both with untied embeddings and no sliding window.
_RESTS: Mapping[str, _Rest] = MappingProxyType(
    {
        "Qwen3-8B-FP16": _Rest("Qwen3ForCausalLM", "qwen3", 12288, 40960, 1_000_000.0, 1e-6),
        "Qwen3-32B": _Rest("Qwen3ForCausalLM", "qwen3", 25600, 40960, 1_000_000.0, 1e-6),
    }
)
_TORCH_DTYPES = MappingProxyType({"bf16": "bfloat16", "fp16": "float16"})


def write_tiny_model(folder: Path) -> Path:
    """Write config.json and tokenizer of a model with 0.4 million weights; returns the folder.

    The folder is made. Raises `SetupError` without the `tokenizers` and `transformers` that vLLM brings.
    """
    return _write(folder, TINY)


def write_dummy_model(profile_name: str, folder: Path) -> Path:
    """Write config.json of the checkpoint behind a model profile, and a tokenizer; returns the folder.

    `profile_name` is a name or alias that `harness.profiles.model` knows, of a dense 16-bit model. The
    folder is made. Raises `SetupError` for another one, or without vLLM's `tokenizers`.
    """
    profile = model(profile_name)
    if profile.name not in _RESTS:
        raise SetupError(
            f"no config.json is known for model {profile.name!r}",
            f"one of {', '.join(_RESTS)}",
            "Or give the folder of a checkpoint as the model.",
        )
    return _write(folder, dummy_config(profile))


def dummy_config(profile: ModelProfile) -> dict[str, Any]:
    """The config.json of a profile that `write_dummy_model` knows."""
    rest = _RESTS[profile.name]
    return {
        "architectures": [rest.architecture],
        "model_type": rest.model_type,
        "vocab_size": profile.vocab,
        "hidden_size": profile.hidden,
        "intermediate_size": rest.intermediate_size,
        "num_hidden_layers": profile.layers,
        "num_attention_heads": profile.heads,
        "num_key_value_heads": profile.kv_heads,
        "head_dim": profile.head_dim,
        "max_position_embeddings": rest.max_positions,
        "rms_norm_eps": rest.rms_norm_eps,
        "rope_theta": rest.rope_theta,
        "hidden_act": "silu",
        "attention_bias": False,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "torch_dtype": _TORCH_DTYPES[profile.weight_dtype],
        "bos_token_id": SPECIALS.index(BEGIN),
        "eos_token_id": SPECIALS.index(END_OF_TURN),
        "pad_token_id": SPECIALS.index(PAD),
    }


def _write(folder: Path, config: Mapping[str, Any]) -> Path:
    tokenizer = _byte_tokenizer(config["max_position_embeddings"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    # transformers 5 writes a class name that 4 does not know, and reads the older one as well.
    written = folder / "tokenizer_config.json"
    settings = json.loads(written.read_text(encoding="utf-8"))
    _dump(written, settings | {"tokenizer_class": "PreTrainedTokenizerFast"})
    _dump(folder / "config.json", config)
    return folder


def _dump(path: Path, table: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(dict(table), indent=2) + "\n", encoding="utf-8")


def _byte_tokenizer(longest: int) -> Any:
    """A byte-level BPE without merges: one token per byte."""
    try:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415
        from transformers import PreTrainedTokenizerFast  # noqa: PLC0415
    except ImportError as error:
        raise SetupError(
            f"{error.name} is not installed",
            "vLLM, which brings it, to make a model",
            "Install it (pip install vllm), or give the folder of a model.",
        ) from error
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*SPECIALS, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        model_max_length=longest,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
