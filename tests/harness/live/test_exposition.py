from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.live.exposition import ALIASES, read_metrics, read_server_info
from harness.live.ports import ReplicaMetrics

VLLM_0_32 = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.5
vllm:prefix_cache_queries_total{engine="0",model_name="tiny"} 100.0
vllm:prefix_cache_queries_created{engine="0",model_name="tiny"} 1.79e+09
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 64.0
vllm:external_prefix_cache_queries_total{engine="0",model_name="tiny"} 36.0
vllm:external_prefix_cache_hits_total{engine="0",model_name="tiny"} 16.0
vllm:num_preemptions_total{engine="0",model_name="tiny"} 1.0
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 1.2e+02
vllm:prompt_tokens_by_source_total{engine="0",model_name="tiny",source="local_compute"} 36.0
vllm:generation_tokens_total{engine="0",model_name="tiny"} 7.0
vllm:request_prompt_tokens_bucket{engine="0",le="1.0",model_name="tiny"} 9.0
vllm:cache_config_info{block_size="128",engine="0",kv_cache_size_tokens="65536",num_gpu_blocks="512"} 1.0
"""
VLLM_0_8 = """\
vllm:num_requests_running{model_name="m"} 1.0
vllm:num_requests_waiting{model_name="m"} 0.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.25
vllm:gpu_prefix_cache_queries_total{model_name="m"} 10.0
vllm:gpu_prefix_cache_hits_total{model_name="m"} 5.0
vllm:num_preemptions_total{model_name="m"} 0.0
vllm:prompt_tokens_total{model_name="m"} 10.0
vllm:generation_tokens_total{model_name="m"} 4.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="100"} 1.0
"""
VLLM_V0 = """\
vllm:num_requests_running{model_name="m"} 1.0
vllm:num_requests_swapped{model_name="m"} 1.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.25
vllm:gpu_prefix_cache_hit_rate{model_name="m"} -1.0
vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1.0
"""
SGLANG = """\
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 3.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 1.0
sglang:token_usage{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 0.28
sglang:cache_hit_rate{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 0.5
sglang:max_total_num_tokens{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 161721.0
sglang:page_size{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 64.0
sglang:num_retracted_requests_total{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 2.0
sglang:prompt_tokens_total{is_streaming="false",model_name="m"} 8.0e+06
sglang:prompt_tokens_total{is_streaming="true",model_name="m"} 1.0e+06
sglang:generation_tokens_total{model_name="m"} 7.5e+06
sglang:cached_tokens_total{cache_source="device",model_name="m"} 4.0e+06
sglang:cached_tokens_total{cache_source="host",model_name="m"} 3.0e+05
sglang:cached_tokens_total{cache_source="storage_file",model_name="m"} 2.0e+05
"""


def read(text: str) -> ReplicaMetrics:
    """All that is read but `raw`, which has tests of its own."""
    found = read_metrics(text)
    found.raw = {}
    return found


def test_every_quantity_of_vllm_0_32_is_read() -> None:
    assert read(VLLM_0_32) == ReplicaMetrics(
        running=3,
        waiting=2,
        kv_usage_share=0.5,
        kv_tokens=65536,
        block_size=128,
        queries_total=100,
        hits_total=64,
        preemptions_total=1,
        prompt_tokens_total=120,
        output_tokens_total=7,
        offload_queries_total=36,
        offload_hits_total=16,
    )


def test_older_vllm_is_read_by_its_own_names() -> None:
    assert read(VLLM_0_8) == ReplicaMetrics(
        running=1,
        waiting=0,
        kv_usage_share=0.25,
        kv_tokens=1600,
        block_size=16,
        queries_total=10,
        hits_total=5,
        preemptions_total=0,
        prompt_tokens_total=10,
        output_tokens_total=4,
    )


def test_what_a_page_does_not_have_is_null_and_not_zero() -> None:
    assert read(VLLM_V0) == ReplicaMetrics(running=1, kv_usage_share=0.25, block_size=16)
    assert read_metrics("") == read_metrics("go_goroutines 12\n") == ReplicaMetrics()


def test_sglang_is_read() -> None:
    """Its cached tokens of slower tiers are the offloaded ones, and every prompt token is a query."""
    assert read(SGLANG) == ReplicaMetrics(
        running=3,
        waiting=1,
        kv_usage_share=0.28,
        kv_tokens=161721,
        block_size=64,
        queries_total=9_000_000,
        hits_total=4_000_000,
        preemptions_total=2,
        prompt_tokens_total=9_000_000,
        output_tokens_total=7_500_000,
        offload_hits_total=500_000,
    )


def test_where_a_version_shows_the_old_and_the_new_name_only_one_counts() -> None:
    page = "vllm:kv_cache_usage_perc 0.5\nvllm:gpu_cache_usage_perc 0.4\n"
    assert read(page + "vllm:prefix_cache_hits_total 5\nvllm:gpu_prefix_cache_hits_total 5\n") == (
        ReplicaMetrics(kv_usage_share=0.5, hits_total=5)
    )


def test_totals_are_known_without_their_suffix_too() -> None:
    assert read("vllm:prompt_tokens 5\nvllm:gpu_prefix_cache_hits 2\n") == ReplicaMetrics(
        prompt_tokens_total=5, hits_total=2
    )


def test_requests_and_totals_are_summed_over_engines_and_models() -> None:
    page = (
        'vllm:num_requests_running{engine="0",model_name="a"} 3\n'
        'vllm:num_requests_running{engine="1",model_name="a"} 4\n'
        'vllm:prompt_tokens_total{engine="0",model_name="a"} 10\n'
        'vllm:prompt_tokens_total{engine="0",model_name="b"} 20\n'
    )
    assert read(page) == ReplicaMetrics(running=7, prompt_tokens_total=30)


def test_vllm_tells_the_blocks_of_all_data_parallel_engines_in_each_engines_line() -> None:
    page = (
        'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1024"} 1\n'
        'vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="1024"} 1\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:kv_cache_usage_perc{engine="1"} 0.25\n'
    )
    assert read(page) == ReplicaMetrics(kv_tokens=16384, block_size=16, kv_usage_share=0.375)


def test_usage_is_weighted_by_the_capacity_of_each_engine() -> None:
    page = (
        'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="300"} 1\n'
        'vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="100"} 1\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:kv_cache_usage_perc{engine="1"} 0.1\n'
    )
    assert read(page) == ReplicaMetrics(kv_tokens=6400, block_size=16, kv_usage_share=0.4)


def test_usage_of_engines_that_cannot_be_told_apart_is_their_plain_mean() -> None:
    page = (
        'vllm:cache_config_info{block_size="16",num_gpu_blocks="300"} 1\n'
        'vllm:kv_cache_usage_perc{model_name="a"} 0.5\nvllm:kv_cache_usage_perc{model_name="b"} 0.25\n'
    )
    assert read(page).kv_usage_share == 0.375


def test_ranks_of_one_engine_tell_one_fact_and_data_parallel_ranks_tell_several() -> None:
    page = "".join(
        f'sglang:{name}{{dp_rank="{dp}",tp_rank="{tp}"}} {value}\n'
        for dp, share in ((0, 0.5), (1, 0.25))
        for tp in (0, 1)
        for name, value in (("max_total_num_tokens", 1000), ("num_running_reqs", 2), ("token_usage", share))
    )
    assert read(page) == ReplicaMetrics(kv_tokens=2000, running=4, kv_usage_share=0.375)


def test_the_capacity_of_a_hybrid_model_is_what_the_server_states() -> None:
    """Its groups of layers share the blocks, so blocks x size is more than fits."""
    page = 'vllm:cache_config_info{block_size="16",kv_cache_size_tokens="8192",num_gpu_blocks="1024"} 1\n'
    assert read(page) == ReplicaMetrics(kv_tokens=8192, block_size=16)
    rounded = page.replace('"8192"', '"16380"')
    assert read(rounded) == ReplicaMetrics(kv_tokens=16384, block_size=16)


def test_a_number_that_is_none_is_null_and_stays_in_raw() -> None:
    found = read_metrics("vllm:kv_cache_usage_perc NaN\nvllm:num_requests_running +Inf\n")
    assert (found.kv_usage_share, found.running) == (None, None)
    assert repr(found.raw) == "{'vllm:kv_cache_usage_perc': nan, 'vllm:num_requests_running': inf}"


def test_raw_has_every_sample_that_was_looked_at_by_its_own_name() -> None:
    assert read_metrics(VLLM_V0).raw == {
        'vllm:num_requests_running{model_name="m"}': 1.0,
        'vllm:gpu_cache_usage_perc{model_name="m"}': 0.25,
        'vllm:gpu_prefix_cache_hit_rate{model_name="m"}': -1.0,
    }


def test_a_label_may_hold_braces_quotes_and_spaces() -> None:
    page = r'vllm:num_requests_running{model_name="a } b \" c {"} 2' + "\n"
    assert read(page) == ReplicaMetrics(running=2)


def test_what_looks_like_a_label_within_another_is_none() -> None:
    page = r'vllm:cache_config_info{block_size="16",x="a,block_size=\"32\",",num_gpu_blocks="8"} 1' + "\n"
    assert read(page) == ReplicaMetrics(kv_tokens=128, block_size=16)


@pytest.mark.parametrize("line", ["vllm:num_requests_running{engine=", "vllm:num_requests_running x"])
def test_a_broken_line_that_matters_raises(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the library's own texts
        read_metrics(line)


def test_a_broken_line_that_does_not_matter_is_passed_over() -> None:
    assert read("garbage{{{\nvllm:other{engine= 1\nvllm:num_requests_running 2\n") == ReplicaMetrics(
        running=2
    )


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=5))
def test_totals_over_any_number_of_engines_are_their_sum(values: list[int]) -> None:
    lines = [f'vllm:prompt_tokens_total{{engine="{i}"}} {value}' for i, value in enumerate(values)]
    assert read_metrics("\n".join(lines)).prompt_tokens_total == sum(values)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_the_share_lies_between_the_engines_shares(shares: list[float]) -> None:
    lines = [f'vllm:kv_cache_usage_perc{{engine="{i}"}} {share!r}' for i, share in enumerate(shares)]
    found = read_metrics("\n".join(lines)).kv_usage_share
    assert found is not None
    assert min(shares) - 1e-12 <= found <= max(shares) + 1e-12


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, ReplicaMetrics()),
        ({"max_total_num_tokens": 20480, "page_size": 1}, ReplicaMetrics(kv_tokens=20480, block_size=1)),
        ({"max_total_num_tokens": 20480, "dp_size": 2}, ReplicaMetrics(kv_tokens=40960)),
        (
            {
                "max_total_num_tokens": 100,
                "page_size": 16,
                "internal_states": [
                    {"memory_usage": {"token_capacity": 100}},
                    {"memory_usage": {"token_capacity": 120}},
                ],
            },
            ReplicaMetrics(kv_tokens=220, block_size=16),
        ),
        (
            {"max_total_num_tokens": 100, "internal_states": [{"last_gen_throughput": 0.0}]},
            ReplicaMetrics(kv_tokens=100),
        ),
        ({"max_total_num_tokens": "many", "page_size": None, "internal_states": 3}, ReplicaMetrics()),
    ],
)
def test_the_server_info_of_sglang_gives_the_capacity_of_all_ranks(
    info: dict[str, Any], expected: ReplicaMetrics
) -> None:
    assert read_server_info(info) == expected


def test_the_table_of_names_fills_every_field() -> None:
    assert set(ALIASES) == set(ReplicaMetrics.__dataclass_fields__) - {"raw"}


@pytest.mark.vllm
def test_vllm_itself_writes_what_the_table_says() -> None:
    """The page of vLLM's own logger for two data-parallel engines, after one step of the first."""
    import prometheus_client  # noqa: PLC0415 - vLLM registers with it
    from vllm.v1.metrics.loggers import PrometheusStatLogger  # noqa: PLC0415 - only where vLLM is
    from vllm.v1.metrics.stats import IterationStats, PrefixCacheStats, SchedulerStats  # noqa: PLC0415

    from harness.virtual.vllm_setup import _model_config, load_vllm  # noqa: PLC0415 - loads vLLM

    vllm = load_vllm()
    config = vllm.VllmConfig(
        model_config=_model_config(),
        cache_config=vllm.CacheConfig(block_size=16),
        device_config=vllm.DeviceConfig("cpu"),
    )
    config.cache_config.num_gpu_blocks = 1024  # of both engines together, as vLLM's client sums them up
    logger = PrometheusStatLogger(config, [0, 1])
    logger.log_engine_initialized()
    step = IterationStats()
    step.num_generation_tokens, step.prompt_token_stats.total, step.num_preempted_reqs = 7, 120, 2
    prefix = PrefixCacheStats(requests=1, queries=100, hits=64)
    first = SchedulerStats(3, 1, 1, kv_cache_usage=0.5, prefix_cache_stats=prefix)
    logger.record(first, step, engine_idx=0)
    logger.record(SchedulerStats(1, kv_cache_usage=0.25), None, engine_idx=1)
    assert read(prometheus_client.generate_latest().decode()) == ReplicaMetrics(
        running=4,
        waiting=2,
        kv_usage_share=0.375,
        kv_tokens=16384,
        block_size=16,
        queries_total=100,
        hits_total=64,
        preemptions_total=2,
        prompt_tokens_total=120,
        output_tokens_total=7,
        offload_queries_total=0,
        offload_hits_total=0,
    )
