"""What a server says of itself, read from its `/metrics` page in Prometheus' text format.

Servers rename their metrics between versions, so one table says for each quantity the names it has had,
newest first. Of those on a page the first counts: versions in between show both.

A page may speak of several engines (data-parallel ranks of one server, several models):

- requests and totals are summed over them;
- samples that differ only in the rank within one engine (`tp_rank`, `pp_rank`, `moe_ep_rank`) are the same
  fact told several times, and count once (the largest);
- the share of the KV cache in use is the mean, weighted by the engines' capacities where all are known;
- vLLM writes the blocks of all its data-parallel engines together into each engine's
  `vllm:cache_config_info`, so equal lines count once; lines that differ are summed.

What a page does not have is null, never 0, and so is what is not a finite number.

Sources: vLLM 0.32's `v1/metrics/loggers.py` and its earlier `engine/metrics.py`; SGLang's
`srt/metrics/collector.py` and its page on production metrics.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from harness.live.ports import ReplicaMetrics


class Alias(NamedTuple):
    """One name of a quantity, and the versions that write it."""

    name: str
    versions: str
    source_is_tier: bool | None = None  # take the samples whose `cache_source` is (not) a slower tier


# quantity -> its names, newest first; of totals the name without `_total` is known too
ALIASES: dict[str, tuple[Alias, ...]] = {
    "running": (
        Alias("vllm:num_requests_running", "vLLM, all"),
        Alias("sglang:num_running_reqs", "SGLang, all"),
    ),
    "waiting": (
        Alias("vllm:num_requests_waiting", "vLLM, all"),
        Alias("sglang:num_queue_reqs", "SGLang, all"),
    ),
    "kv_usage_share": (
        Alias("vllm:kv_cache_usage_perc", "vLLM from 0.10"),
        Alias("vllm:gpu_cache_usage_perc", "vLLM to 0.11"),
        Alias("sglang:token_usage", "SGLang, all"),
    ),
    "kv_tokens": (Alias("sglang:max_total_num_tokens", "SGLang from 0.5, and before 0.3"),),
    "block_size": (Alias("sglang:page_size", "SGLang from 0.5.11"),),
    "queries_total": (
        Alias("vllm:prefix_cache_queries_total", "vLLM from 0.10"),
        Alias("vllm:gpu_prefix_cache_queries_total", "vLLM to 0.11; blocks instead of tokens before 0.8"),
        Alias("sglang:prompt_tokens_total", "SGLang, all: every prompt token is looked up"),
    ),
    "hits_total": (
        Alias("vllm:prefix_cache_hits_total", "vLLM from 0.10"),
        Alias("vllm:gpu_prefix_cache_hits_total", "vLLM to 0.11; blocks instead of tokens before 0.8"),
        Alias("sglang:cached_tokens_total", "SGLang from 0.4", source_is_tier=False),
    ),
    "preemptions_total": (
        Alias("vllm:num_preemptions_total", "vLLM, all"),
        Alias("sglang:num_retracted_requests_total", "SGLang from 0.5"),
    ),
    "prompt_tokens_total": (
        Alias("vllm:prompt_tokens_total", "vLLM, all"),
        Alias("sglang:prompt_tokens_total", "SGLang, all"),
    ),
    "output_tokens_total": (
        Alias("vllm:generation_tokens_total", "vLLM, all"),
        Alias("sglang:generation_tokens_total", "SGLang, all"),
    ),
    "offload_queries_total": (Alias("vllm:external_prefix_cache_queries_total", "vLLM from 0.11"),),
    "offload_hits_total": (
        Alias("vllm:external_prefix_cache_hits_total", "vLLM from 0.11"),
        Alias("sglang:cached_tokens_total", "SGLang from 0.5", source_is_tier=True),
    ),
}
# Looked at and kept in `raw`, but no quantity of ours: a rate over an unknown window.
RATES = ("vllm:gpu_prefix_cache_hit_rate", "sglang:cache_hit_rate")  # vLLM to 0.8; SGLang, all
VLLM_CACHE = "vllm:cache_config_info"  # vLLM, all: a gauge of 1 with the configuration in its labels

RANKS = frozenset({"tp_rank", "pp_rank", "moe_ep_rank"})
IN_GPU = frozenset({"", "device", "total"})  # SGLang's `cache_source`: not a slower tier, or not told apart
# Where groups of layers share the blocks (hybrid models), a token takes several, and only the server knows
# how many tokens fit. What it states is counted in whole longest contexts, so that it lies a little below
# blocks x size for every other model; this far below, it is a hybrid one.
HYBRID_BELOW = 0.9

_Series = dict[str, list[tuple[dict[str, str], float]]]  # name -> labels and value of each sample


def _spellings(name: str) -> tuple[str, ...]:
    return (name, name.removesuffix("_total")) if name.endswith("_total") else (name,)


def _wanted_lines() -> re.Pattern[str]:
    """Matches the lines of the names wanted; alternatives are tried within one namespace only."""
    names = [alias.name for aliases in ALIASES.values() for alias in aliases]
    spaces: dict[str, set[str]] = defaultdict(set)
    for name in (*names, *RATES, VLLM_CACHE):
        for spelling in _spellings(name):
            space, _, rest = spelling.partition(":")
            spaces[space].add(re.escape(rest))
    alternatives = "|".join(f"{space}:(?:{'|'.join(sorted(rests))})" for space, rests in spaces.items())
    return re.compile(rf"\n((?:{alternatives})[ {{][^\n]*)")


_WANTED = _wanted_lines()
# Four of forty labels: parsing them all takes as long as the rest of the page. A quote within a value is
# written with a backslash before it, so nothing within one looks like a label.
_CACHE_LABEL = re.compile(r'[{,](engine|block_size|num_gpu_blocks|kv_cache_size_tokens)="(\w*)"')


def read_metrics(text: str) -> ReplicaMetrics:
    """What a `/metrics` page says. Raises `ValueError` when a line that matters is broken.

    A page of another kind of server gives nulls only.
    """
    series: _Series = defaultdict(list)
    found = ReplicaMetrics()
    lines = _WANTED.findall("\n" + text)
    cache_lines = [dict(_CACHE_LABEL.findall(line)) for line in lines if line.startswith(VLLM_CACHE)]
    for sample in _parsed(line for line in lines if not line.startswith(VLLM_CACHE)):
        found.raw[_written(sample)] = sample.value
        if math.isfinite(sample.value):
            series[sample.name].append((sample.labels, sample.value))
    capacities = _read_capacity(cache_lines, series, found)
    for quantity in ALIASES:
        if quantity not in {"kv_usage_share", "kv_tokens", "block_size"}:
            setattr(found, quantity, _total(_engines(series, quantity)))
    found.kv_usage_share = _mean_share(_engines(series, "kv_usage_share"), capacities)
    return found


def read_server_info(info: Mapping[str, Any]) -> ReplicaMetrics:
    """What SGLang's `/get_server_info` (`/server_info`) says of the KV cache: its capacity and page size.

    There is one internal state per data-parallel rank; `max_total_num_tokens` is that of one rank.
    """
    page = info.get("page_size")
    found = ReplicaMetrics(block_size=page if isinstance(page, int) else None)
    states = info.get("internal_states")
    usages = [_of(state, "memory_usage") for state in states] if isinstance(states, list) else []
    ranks = [_of(usage, "token_capacity") for usage in usages]
    of_one = info.get("max_total_num_tokens")
    if ranks and all(isinstance(tokens, int) for tokens in ranks):
        found.kv_tokens = sum(ranks)
    elif isinstance(of_one, int):
        found.kv_tokens = of_one * (info.get("dp_size") or 1)
    return found


def _of(thing: object, name: str) -> Any:
    return thing.get(name) if isinstance(thing, Mapping) else None


def _parsed(lines: Iterable[str]) -> Iterable[Sample]:
    for family in text_string_to_metric_families("".join(f"{line}\n" for line in lines)):
        yield from family.samples


def _written(sample: Sample) -> str:
    if not sample.labels:
        return sample.name
    labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
    return f"{sample.name}{{{labels}}}"


def _engines(series: _Series, quantity: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Labels -> value, by the first name that the page has; copies of one fact are one."""
    for alias in ALIASES[quantity]:
        samples = [sample for name in _spellings(alias.name) for sample in series.get(name, ())]
        if alias.source_is_tier is not None:
            samples = [
                (labels, value)
                for labels, value in samples
                if (labels.get("cache_source", "") not in IN_GPU) is alias.source_is_tier
            ]
        if samples:
            values: dict[tuple[tuple[str, str], ...], float] = {}
            for labels, value in samples:
                key = tuple(item for item in labels.items() if item[0] not in RANKS)
                values[key] = max(value, values.get(key, value))
            return values
    return {}


def _total(values: Mapping[Any, float]) -> int | None:
    return round(sum(values.values())) if values else None


def _engine_of(labels: Iterable[tuple[str, str]]) -> str:
    named = dict(labels)
    return named.get("engine") or named.get("dp_rank") or ""


def _mean_share(
    shares: Mapping[tuple[tuple[str, str], ...], float], capacities: Mapping[str, int]
) -> float | None:
    """The mean over engines, weighted by capacity where every engine's is known."""
    if not shares:
        return None
    engines = [_engine_of(key) for key in shares]
    told_apart = len(set(engines)) == len(engines) and set(engines) <= capacities.keys()
    weights = [capacities[engine] for engine in engines] if told_apart else [1] * len(engines)
    return sum(share * weight for share, weight in zip(shares.values(), weights, strict=True)) / sum(
        weights
    )


def _read_capacity(lines: list[dict[str, str]], series: _Series, found: ReplicaMetrics) -> dict[str, int]:
    """Fill in `kv_tokens` and `block_size`; returns engine -> tokens, to weigh with."""
    if not lines:
        tokens = _engines(series, "kv_tokens")
        found.kv_tokens = _total(tokens)
        pages = _engines(series, "block_size")
        found.block_size = round(min(pages.values())) if pages else None
        return {_engine_of(key): round(value) for key, value in tokens.items() if value > 0}
    sizes = {size for line in lines if (size := _whole(line, "block_size"))}
    found.block_size = min(sizes) if sizes else None
    by_engine: dict[str, int] = {}
    stated = 0  # by the engines themselves
    for line in lines:
        blocks, size = _whole(line, "num_gpu_blocks"), _whole(line, "block_size")
        if blocks and size:
            by_engine[line.get("engine", "")] = blocks * size
        stated += _whole(line, "kv_cache_size_tokens") or 0
    if by_engine:
        found.kv_tokens = sum(set(by_engine.values()))
        if stated and stated < HYBRID_BELOW * found.kv_tokens:
            found.kv_tokens = stated
    return by_engine


def _whole(labels: Mapping[str, str], name: str) -> int | None:
    """A label that is a whole number; null for `None` and the like."""
    text = labels.get(name, "")
    return int(text) if text.isdecimal() else None
