"""`uniemo store` and `uniemo regenerate`: what a run has committed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uniemo_ray.addresses import local_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uniemo_ray.store.base import Store
    from uniemo_ray.store.verify import Finding

app = typer.Typer(help="Check or mend the shards of a run.", no_args_is_help=True, rich_markup_mode=None)

_Run = Annotated[str, typer.Argument(help="Run folder: a local path or s3://bucket/prefix.")]


@app.command("verify")
def verify(run: _Run) -> None:
    """Re-hash every committed shard and name what is torn, missing, foreign or duplicated.

    Nothing is written. Exit code 0: all is as it was committed; 1: something is not. While a job works on
    the run, a shard that it is about to list is named foreign.

    \b
    Example:
      uniemo store verify runs/demo
    """
    from uniemo_ray.store.verify import verify_run

    report = verify_run(_open(run))
    _print(report.findings)
    tally = report.tally
    typer.echo(
        f"{tally.shards} shards in {tally.folders} folders, {tally.rows} rows, {tally.bytes / 1e6:.1f} MB: "
        f"{len(report.findings)} findings"
    )
    if report.findings:
        raise typer.Exit(1)


@app.command("repair")
def repair(run: _Run) -> None:
    """Remove what verify names, so that submitting the job again makes just that anew.

    It is refused while a driver works on the run.

    \b
    Example:
      uniemo store repair runs/demo
    """
    from uniemo_ray.store.run import RunFolder
    from uniemo_ray.store.verify import repair_run

    folder = RunFolder.open(run, _open(run).read_json("config.json"))
    findings = repair_run(folder)
    _print(findings)
    typer.echo(f"{len(findings)} removed" + (": submit the job again to make them anew" if findings else ""))


def regenerate(
    run: _Run,
    image_id: Annotated[str, typer.Argument(help="Image id, as in the image and score rows.")],
    out: Annotated[Path | None, typer.Option(help="PNG file (default: IMAGE_ID.png).")] = None,
) -> None:
    """Make one image of a run again, from its provenance alone.

    It says whether the bytes are those of the run. They are on the same kind of processor with the same
    library versions. The exit code is 1 if they differ.

    \b
    Example:
      uniemo regenerate runs/demo r1-emotion-awe-00003
    """
    from uniemo_ray.inference.regenerate import regenerate as make_again
    from uniemo_ray.store.atomic import write_atomically

    made = make_again(_open(run), image_id)
    path = local_path(out) if out else Path(f"{image_id}.png")
    with write_atomically(path) as file:
        file.write(made.png)
    verdict = "the same bytes as in the run" if made.is_same else "other bytes than in the run"
    typer.echo(f"{path}: {verdict} (sha256 {made.sha256[:12]})")
    if not made.is_same:
        typer.echo(f"recorded there: {made.recorded['versions']}")
        raise typer.Exit(1)


def _open(run: str) -> "Store":
    """The store of an existing run folder."""
    from uniemo_ray.store.filesystem import open_store
    from uniemo_ray.store.run import check_run

    store = open_store(run)
    if not check_run(store):
        raise ValueError(f"there is no run folder {run}")
    return store


def _print(findings: "Sequence[Finding]") -> None:
    for finding in findings:
        typer.echo(f"{finding.kind}: {finding.folder}/{finding.name}: {finding.detail}")
