"""`uniemo plan`: what a run will need, before any machine is rented."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from uniemo_ray.config import Config

DEFAULT_GB = 48.0


def plan(
    config: Annotated[Path | None, typer.Option(help="YAML file of the run (default: the defaults).")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Override one setting; repeatable.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs, one per training worker (default: resources.workers).")
    ] = None,
    gpu_memory: Annotated[
        float | None, typer.Option(min=1, help="GB of one GPU (default: that of --gpu-type, or 48).")
    ] = None,
    gpu_type: Annotated[
        str | None,
        typer.Option(help="l4, l40s, a100 or h100. With it the plan estimates GPU hours from operations."),
    ] = None,
    images_per_second: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            help="Training images that one GPU takes in a second. With it the plan shows hours. It is one "
            "rate for both stages; for two rates a and b, give 2 / (1/a + 1/b).",
        ),
    ] = None,
    generated_per_second: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            help="Images that one GPU generates in a second. With it the plan includes generation.",
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(min=0, help="Price of one GPU for one hour. With it the plan shows the cost."),
    ] = None,
    train_images: Annotated[
        int | None, typer.Option(min=1, help="Number of training images, if the config does not say it.")
    ] = None,
    diffusion: Annotated[
        str | None, typer.Option(help="Architecture instead of diffusion.model: sd15, sdxl or a folder.")
    ] = None,
    per_machine: Annotated[
        list[str] | None,
        typer.Option(metavar="POOL=NUMBER", help="Processes of a pool on one machine; repeatable."),
    ] = None,
    stage_1: Annotated[
        bool, typer.Option("--stage-1", help="Plan stage 1 alone, which jobs/understanding.py trains.")
    ] = False,
    activations: Annotated[
        bool, typer.Option(help="Estimate activations, which takes most of this command's time.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, for programs.")] = False,
) -> None:
    """Count what a run needs: parameters, memory per GPU, steps, images, bytes, hours, cost.

    It reads no weights. Parameters are counted on the real modules. Memory follows DeepSpeed's ZeRO 0 to 3,
    and the part of the activations is an estimate. With resources.pools it counts each pool, and prices it by
    price_per_node_hour. The exit code is 0 if the run fits, and 1 if it does not;
    then the plan says how it would.

    \b
    Examples:
      uniemo plan --config jobs/configs/demo.yaml
      uniemo plan --set preset=vit_l14_sd15 --set data.kind=emoset --set data.root=/data/EmoSet-118K \\
          --gpus 4 --gpu-memory 48 --images-per-second 30 --price 1.80
    """
    from uniemo_ray.sizing.gpus import find_gpu
    from uniemo_ray.sizing.plan import Rates, make_plan

    gpu = find_gpu(gpu_type) if gpu_type else None

    found = make_plan(
        _config(config, overrides or [], gpus),
        gpu_memory_bytes=round((gpu_memory or (gpu.memory_gb if gpu else DEFAULT_GB)) * 1e9),
        rates=Rates(
            images_per_second=images_per_second,
            generated_per_second=generated_per_second,
            price=price,
            gpu_type=gpu.name if gpu else None,
        ),
        train_images=train_images,
        architecture=diffusion,
        with_activations=activations,
        per_machine=_per_machine(per_machine or []),
        with_stage_2=not stage_1,
    )
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1))
    else:
        from rich.console import Console

        from uniemo_ray.report.plan_table import plan_tables

        Console(width=100).print(plan_tables(found))
    if found.warnings:
        raise typer.Exit(1)


def _per_machine(options: list[str]) -> dict[str, int]:
    found = {}
    for option in options:
        name, _, number = option.partition("=")
        if not number.isdecimal():
            raise ValueError(f"--per-machine {option}: expected POOL=NUMBER, such as train=8")
        found[name] = int(number)
    return found


def _config(path: Path | None, overrides: list[str], gpus: int | None) -> "Config":
    from uniemo_ray.settings_file import load_config

    number = [f"resources.workers={gpus}"] if gpus else []
    return load_config(str(path) if path else None, [*overrides, *number])
