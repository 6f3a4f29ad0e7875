"""`uniemo serve`: a model folder over HTTP, in this process and without Ray."""

from pathlib import Path
from typing import Annotated

import typer

from uniemo_ray.cli.log import show_log
from uniemo_ray.shipped import SHIPPED


def serve(
    model: Annotated[
        str, typer.Argument(help="Model folder: a path, s3://bucket/prefix, or tiny.")
    ] = SHIPPED,
    host: Annotated[str, typer.Option(help="Address to listen on; beyond this machine needs --tokens.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    tokens: Annotated[
        Path | None, typer.Option(help="Token file of `python -m uniemo_ray.service.tokens`.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="Folder for generations, local or s3:// (default: below ~/.cache/uniemo_ray)."),
    ] = None,
) -> None:
    """Serve a model: the HTTP interface and the page, in this process and without Ray.

    For a laptop or a small machine. On a cluster, `serve run uniemo_ray.service.app:build_app model=FOLDER`
    serves the same with replicas.

    \b
    Examples:
      uniemo serve
      uniemo serve runs/demo/model --port 9000
      uniemo serve s3://bucket/model --host 0.0.0.0 --tokens tokens.json
    """
    from uniemo_ray.service import local

    show_log()
    raise typer.Exit(local.serve(model, host=host, port=port, tokens=tokens, store=store))
