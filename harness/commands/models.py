"""`thunderbench models`."""

from __future__ import annotations

import json
from typing import Any

import click

from harness import profiles
from harness.commands.options import json_option
from harness.commands.tables import print_table
from harness.errors import SetupError


@click.command(short_help="Model and hardware profiles.")
@click.option("--hardware", default="8xH100", show_default=True, help="GPUs to ask the KV capacity for.")
@click.option("--kv-dtype", default="fp8", show_default=True, help="Type of the KV cache.")
@click.option(
    "--gpu-memory-utilization", default=0.9, show_default=True, help="Share of GPU memory to use."
)
@json_option
def models(*, hardware: str, kv_dtype: str, gpu_memory_utilization: float, as_json: bool) -> None:
    """List the model profiles, the tokens of KV that each leaves room for, and the GPUs there are.

    \b
    Examples:
      thunderbench models
      thunderbench models --hardware 2xH200 --kv-dtype bf16
      thunderbench models --json
    """  # noqa: D301 - click keeps line breaks after a real backspace
    gpus = profiles.hardware(hardware)
    rows = [_row(name, gpus, kv_dtype, gpu_memory_utilization) for name in profiles.model_names()]
    if as_json:
        click.echo(
            json.dumps({"hardware": str(gpus), "models": rows, "gpus": profiles.hardware_names()}, indent=2)
        )
        return
    print_table(
        ["model", "parameters B>", "active B>", "weights GB>", f"KV tokens on {gpus}>"],
        [
            [
                row["model"],
                f"{row['total_params'] / 1e9:.1f}",
                f"{row['active_params'] / 1e9:.1f}",
                f"{row['weight_bytes'] / 1e9:.0f}",
                "does not fit" if row["kv_tokens"] is None else f"{row['kv_tokens']:,}",
            ]
            for row in rows
        ],
    )
    click.echo(
        f"\nGPUs: {', '.join(profiles.hardware_names())}; any count that splits the heads, e.g. 8xH100"
    )


def _row(name: str, gpus: profiles.Hardware, kv_dtype: str, share: float) -> dict[str, Any]:
    """One model; its `kv_tokens` are null where it does not fit."""
    model = profiles.model(name)
    profiles.kv_bytes_per_token(model, kv_dtype, gpus.count)  # an unknown type is the user's to know
    try:
        tokens = profiles.kv_capacity_tokens(model, gpus, kv_dtype, share)
    except SetupError:
        if not 0 < share <= 1:
            raise
        tokens = None
    return {
        "model": name,
        "total_params": model.total_params,
        "active_params": model.active_params,
        "weight_bytes": model.weight_bytes,
        "kv_bytes_per_token": profiles.kv_bytes_per_token(model, kv_dtype, gpus.count),
        "kv_tokens": tokens,
        "source": dict(model.source),
    }
