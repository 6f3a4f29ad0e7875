"""`uniemo fetch`: weights from a model hub into the layout that every job reads."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from uniemo_ray.cli.sent_folder import is_sent


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
    from uniemo_ray.scratch import scratch_folder
    from uniemo_ray.store.filesystem import open_store

    sources = sources_of(preset)
    store = open_store(to)
    # a folder of our own in any case: it is removed at the end
    folder = (scratch or store.local_path_or_none() or scratch_folder()) / SCRATCH
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
    for line in how_to_use(store.local_path_or_none(), store.uri, preset):
        typer.echo(line)


def how_to_use(local: Path | None, uri: str, preset: str) -> list[str]:
    """Settings with which a job reads what was fetched, and what to mind where it lies on this machine alone.

    Args:
        local: the folder, if it is one of this machine.
        uri: the same, or where it lies in storage.
        preset: that was fetched.
    """
    folder = uri if local is None else str(local.resolve())
    lines = [
        f"--set preset={preset} --set encoder.clip={folder}/clip --set encoder.clip_pretrained=null "
        f"--set diffusion.model={folder}/diffusion"
    ]
    if local is None:
        return lines
    lines.append(
        f"note: {folder} is a folder of this machine; jobs on other machines need it under the same path "
        "there: use a shared disk, or fetch --to s3://bucket/prefix"
    )
    if is_sent(local.resolve(), Path.cwd()):
        lines.append(
            f"warning: {folder} lies in the current folder, which `uniemo submit` sends to the cluster: name "
            "it in .rayignore, or fetch into a folder elsewhere"
        )
    return lines
