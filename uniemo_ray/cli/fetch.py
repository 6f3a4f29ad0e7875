"""`uniemo fetch`: weights from a model hub into the layout that every job reads."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from uniemo_ray.store.base import Store


def fetch(
    preset: Annotated[str, typer.Option(help="vit_b32_sd15, vit_b16_sd15, vit_l14_sd15 or vit_l14_sdxl.")],
    to: Annotated[str, typer.Option(help="Folder, or s3://bucket/prefix.")],
    variant: Annotated[
        str | None, typer.Option(help="fp16: half-precision weights, where the repository has them.")
    ] = None,
    scratch: Annotated[
        Path | None, typer.Option(help="Local folder for unfinished downloads (default: in the target).")
    ] = None,
) -> None:
    """Download the weights of a preset, on a machine that reaches a model hub.

    Revisions are pinned. CLIP's weights are checked against hashes that the package knows, every other file
    against the hash that the hub states. A .bin file becomes safetensors without running what is in it. An
    interrupted download goes on where it stopped. HF_ENDPOINT and HF_TOKEN apply.

    \b
    Examples:
      uniemo fetch --preset vit_l14_sd15 --to models/l14_sd15
      uniemo fetch --preset vit_l14_sdxl --to s3://bucket/models/sdxl --variant fp16
    """
    from uniemo_ray.fetch.fetch import SCRATCH, fetch
    from uniemo_ray.fetch.hub import Hub
    from uniemo_ray.fetch.sources import sources_of
    from uniemo_ray.store.filesystem import open_store

    sources = sources_of(preset)
    store = open_store(to)
    # a folder of our own in any case: it is removed at the end
    folder = (scratch or store.local_path_or_none() or Path(tempfile.gettempdir())) / SCRATCH
    done = fetch(
        sources,
        store,
        hub=Hub.from_environment(),
        scratch=folder,
        variant=variant,
        say=lambda line: typer.echo(line, err=True),
    )
    shutil.rmtree(folder, ignore_errors=True)
    typer.echo(f"{done.files} files fetched ({done.bytes / 1e6:.1f} MB), {done.kept} were there")
    typer.echo(_how_to_use(store, preset))


def _how_to_use(store: "Store", preset: str) -> str:
    """Settings with which a job reads what was fetched."""
    folder = store.local_path_or_none() or store.uri
    return (
        f"--set preset={preset} --set encoder.clip={folder}/clip --set encoder.clip_pretrained=null "
        f"--set diffusion.model={folder}/diffusion"
    )
