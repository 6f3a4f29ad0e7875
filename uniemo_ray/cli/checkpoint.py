"""`uniemo import-checkpoint` and `uniemo export-checkpoint`: the released code's file format."""

from pathlib import Path
from typing import Annotated

import typer

from uniemo_ray.addresses import local_path


def import_checkpoint(
    path: Annotated[
        Path,
        typer.Argument(help="A .pth file of stage 1, or the folder that stage 2 writes (VIT_query.pth)."),
    ],
    preset: Annotated[str, typer.Option(help="Preset of the checkpoint, such as vit_l14_sd15_released.")],
    out: Annotated[str, typer.Option(help="Model folder to write: a local path or s3://bucket/prefix.")],
    data: Annotated[
        Path | None,
        typer.Option(help="EmoSet folder, whose scene and object names the model shall know."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a setting: diffusion.model=DIR; repeatable.")
    ] = None,
    with_diffusion: Annotated[
        bool,
        typer.Option(
            "--diffusion/--no-diffusion",
            help="Copy the diffusion model in, when the checkpoint is of stage 2.",
        ),
    ] = True,
) -> None:
    """Make a model folder from a checkpoint of the released code.

    The whole best.pth of stage 1 is read as it was saved, also from several GPUs. Only tensors,
    plain values and the run's arguments are loaded: a file that names any other type is refused.

    The model computes what the released code does with the checkpoint, from the picture on: it is
    shown as that code shows it in the checkpoint's stage (ImageNet's mean and deviation in stage 1,
    0.5 and a crop of 256 to 224 in stage 2). The condition of stage 2 is the released one with
    fusion.match=mapped, which vit_l14_sd15_released sets; other presets find other attributes.

    \b
    Examples:
      uniemo import-checkpoint best.pth --preset vit_l14_sd15_released --out models/released
      uniemo import-checkpoint stage2/ --preset vit_l14_sd15_released --out models/released \\
          --data data/EmoSet-118K --set diffusion.model=/models/stable-diffusion-v1-5
    """
    from uniemo_ray.data.emoset import EmoSetFolder
    from uniemo_ray.inference.released import import_checkpoint as make_folder
    from uniemo_ray.settings_file import load_config

    config = load_config(None, [f"preset={preset}", *(set_ or [])])
    names = EmoSetFolder(data).names if data else None
    report = make_folder(path, config, out, names=names, with_diffusion=with_diffusion)
    typer.echo(f"{out}: {report.taken} tensors from {path}, fingerprint {report.fingerprint}")
    if report.fresh:
        typer.echo(f"not in the checkpoint, so untrained: {', '.join(report.fresh)}")
    if report.unused:
        typer.echo(f"left out: {len(report.unused)} tensors that nothing takes, such as {report.unused[0]}")
    if "fusion" not in report.fresh and report.match != "mapped":
        typer.echo("attributes are found by fusion.match projected, unlike in the released code")
    if not report.has_diffusion:
        typer.echo("without a diffusion model: it understands images and makes none")


def export_checkpoint(
    model: Annotated[str, typer.Argument(help="Model folder: a local path or s3://bucket/prefix.")],
    out: Annotated[Path, typer.Option(help="A .pth file as stage 1 writes, or a folder as stage 2 does.")],
) -> None:
    """Write a model folder as a checkpoint of the released code.

    This works for what that code can compute: the settings of a *_released preset, and eight
    emotions. A model of stage 1 alone goes to a .pth file, as its mappers are untrained.

    \b
    Example:
      uniemo export-checkpoint runs/mine/model --out stage2
    """
    from uniemo_ray.inference.released import export_checkpoint as write

    write(model, local_path(out))
    typer.echo(str(out))
