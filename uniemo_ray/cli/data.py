"""`uniemo data`: make EmoSketch, check a folder."""

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uniemo_ray.addresses import local_path

if TYPE_CHECKING:
    from uniemo_ray.data.check import FolderReport
    from uniemo_ray.data.samples import Rejected

app = typer.Typer(help="Make or check image data.", no_args_is_help=True, rich_markup_mode=None)

_Count = Annotated[int, typer.Option(min=1, help="Number of images.")]


@app.command("make-sketch")
def make_sketch(
    out: Annotated[Path, typer.Option(help="Folder to write, in EmoSet-118K's layout.")],
    train: _Count = 4000,
    val: _Count = 500,
    test: _Count = 1000,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Side of an image in pixels.")] = 64,
    labels: Annotated[
        str,
        typer.Option(help="mikels, ekman, sentiment, or classes: calm=contentment+awe,tense=anger+fear"),
    ] = "mikels",
) -> None:
    """Draw EmoSketch, a data set of simple scenes whose emotions follow a known rule.

    Image i of a split depends on the seed, the split and i only, so a larger set contains the smaller one.
    An interrupted run goes on where it stopped.

    \b
    Example:
      uniemo data make-sketch --out data/sketch --train 4000 --val 500 --test 1000 --seed 0 --size 128
      uniemo data make-sketch --out data/calm --labels calm=contentment+awe,tense=anger+fear
    """
    from uniemo_ray.config import DataConfig
    from uniemo_ray.data.emosketch.write import write_sketch
    from uniemo_ray.data.sketch_rule import classes_in

    classes = classes_in(DataConfig.model_validate(_sketch_labels(labels)))
    write_sketch(local_path(out), train=train, val=val, test=test, seed=seed, size_px=size, classes=classes)
    typer.echo(f"{train} training, {val} validation and {test} test images in {out}")


def _sketch_labels(text: str) -> dict[str, object]:
    """Settings of the classes that the command line names."""
    if "=" not in text:
        return {"labels": text}
    pairs = [part.partition("=") for part in text.split(",")]
    classes = {label.strip(): [name.strip() for name in names.split("+")] for label, _, names in pairs}
    return {"labels": [label.strip() for label, _, _ in pairs], "sketch_classes": classes}


@app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of the data set, as in data.root of a run.")],
    kind: Annotated[
        str, typer.Option(help="emoset, fi, emotionroi, twitter1, twitter2 or folders, as data.kind.")
    ] = "emoset",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A=VALUE", help="Other data settings, such as labels=ekman."),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Images with more pixels than this are refused (default: data.max_pixels)."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that decode.")] = max(
        1, (os.cpu_count() or 1) - 1
    ),
) -> None:
    """Open every image and annotation of a folder and say what is wrong, file by file.

    Files that can be used after conversion (grey, CMYK, transparent, animated) are no problem; the others
    are listed with a reason and left out by a run. Images that are there more than once, byte for byte, are
    listed and stay. Exit code 0: all usable; 1: usable, some files are left out; 2: a run cannot start with
    this folder.

    \b
    Example:
      uniemo data check data/EmoSet-118K
      uniemo data check data/twitter1 --kind twitter1 --set agreement=5
    """
    from uniemo_ray.data.check import check_folder
    from uniemo_ray.data.readers import open_folder
    from uniemo_ray.settings_file import load_config

    given = [
        f"data.kind={kind}",
        f"data.root={json.dumps(str(folder), ensure_ascii=False)}",
        *(f"data.{item}" for item in settings or []),
    ]
    data = load_config(None, given).data
    report = check_folder(
        local_path(folder),
        reader=partial(open_folder, data=data),
        max_pixels=max_pixels or data.max_pixels,
        workers=workers,
        keep=0,
        on_rejected=_print_rejected,
    )
    _print_report(report)
    if not report.is_usable:
        raise typer.Exit(2)
    if report.reasons:
        raise typer.Exit(1)


def _print_rejected(rejected: "Rejected") -> None:
    typer.echo(f"{rejected.path}: {rejected.reason}: {rejected.detail}")


def _print_report(report: "FolderReport") -> None:
    for duplicate in report.duplicates:
        places = (f"{place.image_id} ({place.emotion}, {place.split})" for place in duplicate.places)
        typer.echo(f"same image: {', '.join(places)}")
    for line in report.notes:
        typer.echo(f"note: {line}")
    for split, listed in report.listed.items():
        typer.echo(f"{split}: {report.usable[split]} of {listed} images usable")
    for reason, count in report.reasons.items():
        typer.echo(f"left out: {count} x {reason}")
    for line in report.faults:
        typer.echo(f"error: {line}", err=True)
