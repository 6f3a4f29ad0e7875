"""What a RayService serves, and what a RayJob runs: settings that are text inside a manifest."""

import contextlib
import io
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tools.cluster_check.documents import name_of, parse
from tools.cluster_check.faults import Document, Fault
from uniemo_ray.config import Config
from uniemo_ray.jobs.command_line import make_parser, overrides_of
from uniemo_ray.settings_file import load_config

DRAIN_S = 30
"""A Pod, and an old cluster, stay so much longer than the longest generation."""


def merged(base: Any, changes: Any) -> Any:
    """`changes` over `base`, key by key; lists of mappings place by place."""
    if isinstance(base, dict) and isinstance(changes, dict):
        keys = dict.fromkeys([*base, *changes])
        return {key: merged(base.get(key), changes[key]) if key in changes else base[key] for key in keys}
    if isinstance(base, list) and isinstance(changes, list) and len(base) == len(changes):
        return [merged(old, new) for old, new in zip(base, changes, strict=True)]
    return changes


def check_service(doc: Document, file: str, root: Path) -> list[Fault]:
    """`serveConfigV2` against Serve's schema, the application's arguments, and serve/config.yaml."""
    where = f"{name_of(doc)}: serveConfigV2"
    docs, faults = parse(str(doc["spec"].get("serveConfigV2", "")), file)
    if faults or not docs:
        return [Fault(file, where, fault.what) for fault in faults] or [Fault(file, where, "is empty")]
    config = docs[0]
    base = parse((root / "serve/config.yaml").read_text(), "")[0][0]
    changes = parse((root / "cluster/kuberay/serve_changes.yaml").read_text(), "")[0][0]
    wanted = merged(base, changes)
    found = [
        f"{key} is not what serve/config.yaml and cluster/kuberay/serve_changes.yaml say"
        for key in _differences(wanted, config)
    ]
    return [Fault(file, where, line) for line in [*found, *_invalid(config), *_waits(doc, config)]]


def _differences(wanted: Any, found: Any, at: str = "") -> list[str]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        keys = dict.fromkeys([*wanted, *found])
        return [
            line
            for key in keys
            for line in _differences(wanted.get(key), found.get(key), f"{at}.{key}" if at else key)
        ]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [
            line
            for place, (old, new) in enumerate(zip(wanted, found, strict=True))
            for line in _differences(old, new, f"{at}[{place}]")
        ]
    return [] if wanted == found else [at]


def _invalid(config: dict[str, Any]) -> list[str]:
    from ray.serve.schema import ServeDeploySchema

    from uniemo_ray.service.app import BuildArgs

    try:
        ServeDeploySchema.model_validate(config)
        for application in config.get("applications", []):
            BuildArgs.model_validate(application.get("args") or {})
    except ValidationError as error:
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return []


def _waits(doc: Document, config: dict[str, Any]) -> list[str]:
    """Times of the manifest that must outlast a generation."""
    args = (config.get("applications") or [{}])[0].get("args") or {}
    least = (args.get("limits") or {}).get("generate_timeout_s", 240) + DRAIN_S
    found = []
    if doc["spec"].get("rayClusterDeletionDelaySeconds", 60) < least:
        found.append(
            f"rayClusterDeletionDelaySeconds is less than the longest generation and 30 s ({least:g})"
        )
    for group in (doc["spec"].get("rayClusterConfig") or {}).get("workerGroupSpecs") or []:
        grace = group["template"]["spec"].get("terminationGracePeriodSeconds", 30)
        if grace < least:
            found.append(
                f"{group['groupName']}: terminationGracePeriodSeconds {grace} is less than {least:g}"
            )
    return found


def check_runtime_env(doc: Document, file: str) -> list[Fault]:
    """`runtimeEnvYAML` of a RayJob, if it has one."""
    from ray.runtime_env import RuntimeEnv

    text = doc["spec"].get("runtimeEnvYAML")
    if text is None:
        return []
    where = f"{name_of(doc)}: runtimeEnvYAML"
    docs, faults = parse(str(text), file)
    try:
        RuntimeEnv(**(docs[0] if docs else {}))
    except (TypeError, ValueError) as error:
        faults = [*faults, Fault(file, where, str(error))]
    return [Fault(file, where, fault.what) for fault in faults]


def check_entrypoint(doc: Document, file: str, run: Path) -> list[Fault]:
    """The command of a RayJob: a job of ours, with options and settings that exist."""
    where = f"{name_of(doc)}: entrypoint"
    program, *rest = shlex.split(str(doc["spec"].get("entrypoint", ""))) or [""]
    if program != "python" or rest[:1] != ["-m"] or len(rest) < 2:
        return [Fault(file, where, "is not `python -m uniemo_ray.jobs.NAME ...`")]
    if not rest[1].startswith("uniemo_ray.jobs.") or find_spec(rest[1]) is None:
        return [Fault(file, where, f"there is no job {rest[1]}")]
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            run_of_entrypoint(doc, run)
    except SystemExit:
        return [Fault(file, where, told.getvalue().strip().rpartition("error: ")[2])]
    except ValueError as error:
        return [Fault(file, where, str(error))]
    return []


def run_of_entrypoint(doc: Document, run: Path) -> Config:
    """The settings of a RayJob whose entrypoint is a job of ours, with what its options change.

    Raises:
        ValueError: a setting is wrong.
        SystemExit: an option is.
    """
    _, _, _, *options = shlex.split(str(doc["spec"]["entrypoint"]))
    return load_config(str(run), overrides_of(make_parser(None).parse_args(options)))


def check_run(path: Path, file: str) -> tuple[Config | None, list[Fault]]:
    """The settings that a RayJob runs with."""
    try:
        return load_config(str(path), []), []
    except (ValueError, OSError) as error:
        return None, [Fault(file, "", str(error))]
