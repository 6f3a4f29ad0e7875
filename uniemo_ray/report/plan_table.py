"""A plan in the terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from uniemo_ray.sizing.gpus import UTILISATION
from uniemo_ray.sizing.memory import GpuMemory
from uniemo_ray.sizing.plan import Plan, StageMemory


def plan_tables(plan: Plan) -> RenderableType:
    """Parameters, memory of the stages, work, notes and warnings; print it with a rich console."""
    memory = [_memory(stage, plan) for stage in plan.memory]
    warnings = [Text(f"warning: {line}", style="bold red") for line in plan.warnings]
    which = "Both stages fit at the ZeRO stages" if plan.diffusion else "Stage 1 fits at the ZeRO stage"
    fits = [] if warnings else [Text(f"{which} of the config.", style="green")]
    pools = [_pools(plan)] if plan.has_pools else []
    return Group(_parameters(plan), *memory, _work(plan), *pools, *_notes(plan), *warnings, *fits)


def _parameters(plan: Plan) -> Table:
    stages = [stage.stage for stage in plan.memory]
    model = f", {plan.diffusion}" if plan.diffusion else ""
    heads = ["all", *(f"stage {stage}" for stage in stages)]
    table = _table(f"Parameters: CLIP {plan.clip}{model}", "part", heads)
    rows = [[part.total, part.stage1, part.stage2][: len(heads)] for part in plan.parts]
    for part, values in zip(plan.parts, rows, strict=True):
        table.add_row(part.name, *(f"{value:,}" for value in values))
    table.add_section()
    table.add_row("all", *(f"{sum(values):,}" for values in zip(*rows, strict=True)), style="bold")
    return table


def _memory(stage: StageMemory, plan: Plan) -> Table:
    title = (
        f"Stage {stage.stage}: GB on each of {plan.gpus} GPUs, {stage.batch_per_gpu} images on each, "
        f"{stage.at_once} at once"
    )
    heads = [f"ZeRO {o.zero_stage}" + (" *" if o.zero_stage == stage.chosen else "") for o in stage.options]
    table = _table(title, "GB", heads)
    kept = ("average",) if any(option.average for option in stage.options) else ()
    moved = ("weights", "master", "gradients", "bucket", "optimizer")
    rows = (*moved, *kept, "frozen", "activations", "reserve")
    labels = {
        "master": "fp32 copy of ZeRO",
        "bucket": "gradient bucket",
        "average": "averaged weights",
        "frozen": "frozen models",
        "activations": "activations (estimate)",
        "reserve": "reserve (estimate)",
    }
    for row in rows:
        is_missing = row == "activations" and not plan.has_activations
        cells = ["?" if is_missing else _gb(getattr(option, row)) for option in stage.options]
        table.add_row(labels.get(row, row), *cells)
    table.add_section()
    table.add_row("all", *(_total(option, plan.gpu_memory) for option in stage.options))
    return table


def _total(option: GpuMemory, limit: int) -> Text:
    return Text(_gb(option.total), style="bold" if option.total <= limit else "bold red")


def _work(plan: Plan) -> Table:
    table = _table("Work", "", ["images", "epochs", "steps"])
    for stage in plan.work:
        table.add_row(stage.name, f"{stage.images:,}", str(stage.epochs), f"{stage.steps:,}")
    if plan.generated:
        table.add_section()
        table.add_row("generated images", f"{plan.generated:,}", "", "")
    return table


def _pools(plan: Plan) -> Table:
    table = _table("Pools, at most", "pool", ["processes", "machines", "CPUs", "GPUs", "GB", "hours", "cost"])
    for pool in plan.pools:
        numbers = [pool.processes, pool.machines, pool.cpus, pool.gpus, pool.memory_gb]
        hours, cost = pool.hours, pool.cost
        cells = ["?" if hours is None else f"{hours:,.1f}", "?" if cost is None else f"{cost:,.2f}"]
        table.add_row(pool.name, *(f"{number:,g}" for number in numbers), *cells)
    costs = [pool.cost for pool in plan.pools if pool.cost is not None]
    if costs:
        table.add_section()
        table.add_row("all", *[""] * 6, f"{sum(costs):,.2f}", style="bold")
    return table


def _pool_notes(plan: Plan) -> list[str]:
    if not plan.has_pools:
        return []
    labels = [f"Pool {pool.shown}" for pool in plan.pools if pool.shown != pool.name]
    return [*labels, "A pool's machines hold one process each, unless --per-machine says how many"]


def _notes(plan: Plan) -> list[Text]:
    written = plan.written
    parts = ", ".join(
        f"{name} {_gb(getattr(written, name))}"
        for name in ("samples", "latents", "images", "mixed", "features", "checkpoints", "models")
    )
    lines = [f"Written to the run folder: about {_gb(written.total)} GB ({parts})"]
    if plan.hours is not None:
        hours = plan.hours
        lines.append(
            f"GPU hours, estimated at {UTILISATION:.0%} of the peak rate of one {hours.gpu}: "
            f"{hours.total:,.1f} (training {hours.training:,.1f}, generation {hours.generation:,.1f}, frozen "
            f"models {hours.frozen:,.1f})"
        )
    if plan.cost is None:
        lines.append("Hours and cost by your own rates: give --images-per-second (and --price)")
    else:
        made = plan.cost.generation_hours
        counted = "generation not counted" if made is None else f"generation {made:.1f} h"
        generation = counted if plan.generated else "no generation"
        price = "" if plan.cost.price is None else f", cost {plan.cost.price:,.2f}"
        lines.append(
            f"Training {plan.cost.training_hours:.1f} h, {generation}: "
            f"{plan.cost.gpu_hours:.1f} GPU hours{price}"
        )
    return [
        Text("* the config's choice", style="dim"),
        *(Text(line) for line in (*lines, *_pool_notes(plan), *plan.notes)),
    ]


def _table(title: str, first: str, heads: list[str]) -> Table:
    table = Table(title=Text(title), title_justify="left")
    table.add_column(first, no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _gb(value: int) -> str:
    return f"{value / 1e9:.2f}"
