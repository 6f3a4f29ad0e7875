"""`uniemo understand` and `uniemo generate`: a model folder at work."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uniemo_ray.addresses import local_path

if TYPE_CHECKING:
    from uniemo_ray import UniEmo
    from uniemo_ray.data.pixels import RGB
    from uniemo_ray.inference.uniemo import UnderstandResult


_AT_ONCE = 32
"""Images in memory at a time."""
_Model = Annotated[
    str,
    typer.Option(envvar="UNIEMO_MODEL", help="Model folder: a path, s3://bucket/prefix, or tiny (shipped)."),
]


def understand(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: _Model,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line, for programs.")] = False,
) -> None:
    """Tell which emotions images evoke.

    Also names the scene and the objects that the model sees. Of several images, those that cannot be read are
    named on standard error and the others are understood; exit code 1 says that there were some.

    \b
    Examples:
      uniemo understand photo.jpg --model runs/demo/model
      uniemo understand *.jpg --model runs/demo/model --json | jq .emotions
      UNIEMO_MODEL=s3://bucket/model uniemo understand photo.jpg
    """
    seer: UniEmo | None = None
    refused = 0
    for start in range(0, len(images), _AT_ONCE):
        squares: list[tuple[Path, RGB]] = []
        for path in images[start : start + _AT_ONCE]:
            try:
                rgb = _read_image(path)
            except ValueError as error:
                if len(images) == 1:
                    raise
                refused += 1
                typer.echo(f"error: {error}", err=True)
                continue
            seer = seer or _load(model)
            squares.append((path, seer.preprocess.square(rgb)))
        results = seer.understand_squares([square for _, square in squares]) if seer else []
        for (path, _), result in zip(squares, results, strict=True):
            typer.echo(json.dumps(_as_dict(path, result)) if as_json else _as_text(path, result))
    if refused:
        raise typer.Exit(1)


def generate(
    emotion: Annotated[str, typer.Argument(help="One emotion, or weights: amusement=0.6,fear=0.4")],
    model: _Model,
    prompt: Annotated[
        str | None,
        typer.Option(
            help='Text in which {} stands for the emotion, such as "{} room" (default: that of training).'
        ),
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Number of images.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first image. Each further image has the next seed.")
    ] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps (default: the model's).")] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="Guidance scale (default: the model's).")
    ] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Side in pixels (default: the model's).")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the PNG files.")] = Path("pictures"),
) -> None:
    """Generate images that evoke an emotion.

    A mixture of emotions is possible too. Each PNG says in its text where it comes from: seed, prompt, model,
    settings.

    \b
    Examples:
      uniemo generate awe --model runs/demo/model --n 4 --seed 7
      uniemo generate fear --prompt "{} room" --model runs/demo/model
      uniemo generate amusement=0.6,fear=0.4 --model runs/demo/model --out mixed
    """
    _check_prompt(prompt)
    wanted, out = parse_emotion(emotion, _labels(model)), local_path(out)
    pictures = _load(model).generate(
        wanted, prompt, n=n, seed=seed, steps=steps, guidance=guidance, size=size
    )
    out.mkdir(parents=True, exist_ok=True)
    name = "+".join([wanted] if isinstance(wanted, str) else wanted)
    for index, picture in enumerate(pictures):
        path = out / f"{name}-{seed + index}.png"
        picture.save(path)
        typer.echo(str(path))


def compact(
    model: Annotated[Path, typer.Argument(help="Model folder, trained on the tiny base models.")],
    out: Annotated[Path, typer.Option(help="Folder to write, which must not exist.")],
) -> None:
    """Write a model folder as small as it gets.

    Its weights take eight bits each, and the tiny base weights are taken from the package. The shipped
    model was made this way.

    \b
    Example:
      uniemo compact runs/sketch/model --out small
    """
    from uniemo_ray.inference.compact import save_compact

    out = local_path(out)
    fingerprint = save_compact(local_path(model), out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    typer.echo(f"{out}: {size / 1e6:.1f} MB, fingerprint {fingerprint}")


def parse_emotion(text: str, labels: Sequence[str]) -> str | dict[str, float]:
    """`awe` -> `awe`; `amusement=0.6,fear=0.4` -> weights.

    Args:
        text: of the command line.
        labels: the emotions of the model.

    Raises:
        ValueError: for an emotion that is not the model's, or a weight that is no positive number.
    """
    if "=" not in text:
        _check_emotion(text, labels)
        return text
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, separator, number = (piece.strip() for piece in part.partition("="))
        _check_emotion(name, labels)
        if not separator or name in weights:
            raise ValueError(
                f"expected weights like amusement=0.6,fear=0.4 with each emotion once, got {text!r}"
            )
        weights[name] = _parse_weight(name, number)
    return weights


def _check_emotion(name: str, labels: Sequence[str]) -> None:
    if name not in labels:
        raise ValueError(f"unknown emotion {name!r}: expected one of {', '.join(labels)}")


def _labels(model: str) -> tuple[str, ...]:
    """The emotions of a model, before its weights are read."""
    from uniemo_ray.inference.model_source import describe_model

    return describe_model(model)[0].labels


def _parse_weight(name: str, number: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ValueError(f"the weight of {name} must be a positive number, got {number!r}")
    return weight


def _check_prompt(prompt: str | None) -> None:
    if prompt is not None and "{}" not in prompt:
        raise ValueError(f'the prompt needs {{}} where the emotion goes, as in "{{}} room"; got {prompt!r}')


def _load(model: str) -> "UniEmo":
    from transformers.utils.logging import disable_progress_bar

    from uniemo_ray import UniEmo

    disable_progress_bar()  # type: ignore[no-untyped-call]  # two short bars that say nothing to a user
    return UniEmo.from_pretrained(model)


def _read_image(path: Path) -> "RGB":
    """The picture in a file.

    Raises:
        ValueError: one line with the path.
    """
    from uniemo_ray.config import MAX_PIXELS
    from uniemo_ray.data.images import ImageError, decode_rgb

    try:
        return decode_rgb(path.read_bytes(), MAX_PIXELS)
    except ImageError as error:
        raise ValueError(f"{path}: {error}") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None


def _as_dict(path: Path, result: "UnderstandResult") -> dict[str, Any]:
    return {
        "image": str(path),
        "top": result.top,
        "valence": result.valence,
        "emotions": {name: round(value, 6) for name, value in result.emotions.items()},
        "scenes": [[name, round(score, 6)] for name, score in result.scenes],
        "objects": [[name, round(score, 6)] for name, score in result.objects],
    }


def _as_text(path: Path, result: "UnderstandResult") -> str:
    ranked = sorted(result.emotions.items(), key=lambda item: -item[1])
    lines = [f"{path}: {result.top}" + (f" ({result.valence})" if result.valence else "")]
    lines += [f"  {name:<12} {value:6.1%}  {'#' * round(30 * value)}" for name, value in ranked]
    for kind, found in (("scene", result.scenes), ("object", result.objects)):
        if found:
            lines.append(f"  {kind}: " + ", ".join(f"{name} {score:.2f}" for name, score in found[:3]))
    return "\n".join(lines)
