"""Assembly of the `uniemo` command and its one way of reporting errors."""

import logging
import sys
from importlib.metadata import PackageNotFoundError, version

import typer

from uniemo_ray import __version__
from uniemo_ray.addresses import expand_arguments
from uniemo_ray.cli import checkpoint, data, fetch, model, plan, serve, store, submit
from uniemo_ray.cli.log import show_log
from uniemo_ray.store.errors import StoreError

ERROR_CODE = 2
_LIBRARIES = ("ray", "torch", "deepspeed", "diffusers", "open_clip_torch", "transformers")

app = typer.Typer(
    name="uniemo",
    help=(
        "UniEmo: understand which emotion an image evokes, and generate images that evoke one.\n\n"
        "\b\n"
        "The whole method, on your own machine or on a Ray cluster:\n"
        '  uniemo head run -- uniemo submit feedback_loop -- --config demo --set run="$PWD/runs/demo"\n'
        "  uniemo submit --address URL feedback_loop -- --config my.yaml --set run=s3://bucket/run\n\n"
        "\b\n"
        "What it leaves behind, a model folder (--model tiny is one that is shipped):\n"
        "  uniemo understand photo.jpg --model runs/demo/model\n"
        '  uniemo generate awe --prompt "{} forest" --model runs/demo/model --out pictures\n'
        "  uniemo serve runs/demo/model\n\n"
        "\b\n"
        "A run folder, its shards and images:\n"
        "  uniemo store verify runs/demo\n"
        "  uniemo regenerate runs/demo IMAGE_ID\n\n"
        "\b\n"
        "The released code's checkpoints:\n"
        "  uniemo import-checkpoint best.pth --preset vit_l14_sd15_released --out model\n"
        "  uniemo export-checkpoint model --out stage2\n\n"
        "\b\n"
        "Before a run: what it needs, and the weights it reads:\n"
        "  uniemo plan --config my.yaml --gpus 4 --gpu-memory 48\n"
        "  uniemo fetch --preset vit_l14_sd15 --to models\n\n"
        "\b\n"
        "Data:\n"
        "  uniemo data make-sketch --out data/sketch\n"
        "  uniemo data check data/EmoSet-118K\n"
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.command("understand")(model.understand)
app.command("generate")(model.generate)
app.command("compact")(model.compact)
app.command("serve")(serve.serve)
app.add_typer(store.app, name="store")
app.command("regenerate")(store.regenerate)
app.command("import-checkpoint")(checkpoint.import_checkpoint)
app.command("export-checkpoint")(checkpoint.export_checkpoint)
app.command("plan")(plan.plan)
app.command("fetch")(fetch.fetch)
app.command("submit", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(
    submit.submit
)


@app.command(
    "head",
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    },
    options_metavar="[OPTIONS] ACTION",
)
def head(context: typer.Context) -> None:
    """Start, stop or use a Ray head of your own on this machine."""
    from uniemo_ray.head import command

    show_log()
    raise typer.Exit(command.main(context.args))


@app.command("version")
def show_version() -> None:
    """Print versions, also of the main libraries."""
    typer.echo(f"uniemo_ray {__version__}")
    for name in _LIBRARIES:
        typer.echo(f"{name} {_installed(name)}")


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Entry point: bad input or storage is one line on standard error and exit code 2, no traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app(args=expand_arguments(sys.argv[1:]))
    except (ValueError, OSError, StoreError) as error:
        typer.echo(f"error: {' '.join(_explain(error).split())}", err=True)
        sys.exit(ERROR_CODE)


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
