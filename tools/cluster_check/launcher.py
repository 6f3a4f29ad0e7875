"""Files of Ray's cluster launcher, without starting anything."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

from tools.cluster_check.documents import parse
from tools.cluster_check.faults import Document, Fault
from tools.cluster_check.pools import GB, Pool, check_pools, of_types

MACHINE_SHARE = 0.65
GIB = 2**30
MEMORY_GIB = {
    "m7i.xlarge": 16, "m7i.4xlarge": 64, "p4d.24xlarge": 1152, "g6.2xlarge": 32,
    "e2-standard-4": 16, "n2-standard-16": 64, "a2-highgpu-4g": 340, "g2-standard-8": 32,
}  # fmt: skip
"""Memory of machines by their documents. Unit: GiB."""
SETUP = ("setup_commands", "head_setup_commands", "worker_setup_commands")


def check_launcher(path: Path, pools: dict[str, Pool]) -> list[Fault]:
    """Faults of one file: Ray's schema and rules, machines, commands, and pools."""
    file = path.name
    docs, faults = parse(path.read_text(), file)
    if faults:
        return faults
    config = docs[0]
    if problem := _refused(config):
        return [Fault(file, "", problem)]
    types = config["available_node_types"]
    lines = [*_commands(config), *_token(config)]
    for name, value in types.items():
        lines += [f"{name}: {line}" for line in _machine(name, value, config)]
    faults = [Fault(file, "", line) for line in lines]
    workers = {name: value for name, value in types.items() if name != config["head_node_type"]}
    return faults + check_pools(pools, of_types(workers), file, "")


def _refused(config: Document) -> str | None:
    """What Ray says, in its first line."""
    from ray.autoscaler._private.util import prepare_config, validate_config
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    try:
        prepared = prepare_config(copy.deepcopy(config))
        validate_config(prepared)
        AutoscalingConfig(prepared, skip_content_hash=True).get_node_type_configs()
    except Exception as error:  # Ray raises its own and jsonschema's kinds
        at = ".".join(map(str, getattr(error, "absolute_path", ())))
        first = (str(getattr(error, "message", error)).splitlines() or [type(error).__name__])[0]
        return f"{at}: {first}" if at else first
    return None


def _commands(config: Document) -> list[str]:
    found = [
        f"{key} must be [], or Ray's defaults install another Ray" for key in SETUP if config.get(key) != []
    ]
    head = " ".join(config.get("head_start_ray_commands") or [])
    if "--dashboard-host=127.0.0.1" not in head:
        found.append(
            "head_start_ray_commands: --dashboard-host=127.0.0.1 is missing: others reach the dashboard"
        )
    if "--autoscaling-config=" not in head:
        found.append("head_start_ray_commands: --autoscaling-config is missing, so no machine would start")
    return found


def _token(config: Document) -> list[str]:
    options = (config.get("docker") or {}).get("run_options") or []
    found = []
    if not any("RAY_AUTH_MODE=token" in option for option in options):
        found.append("docker.run_options: --env RAY_AUTH_MODE=token is missing")
    if not any(str(target).endswith("/.ray/auth_token") for target in config.get("file_mounts") or {}):
        found.append("file_mounts: no .ray/auth_token, so the machines could not talk to each other")
    return found


def _machine(name: str, value: Document, config: Document) -> list[str]:
    resources, node = value.get("resources") or {}, value.get("node_config") or {}
    found = [f"resources has no {key}" for key in ("CPU", "memory") if key not in resources]
    machine = node.get("InstanceType") or node.get("machineType")
    size = MEMORY_GIB.get(str(machine))
    if size is not None and resources.get("memory", 0) > MACHINE_SHARE * size * GIB:
        offered = MACHINE_SHARE * size * GIB / GB
        found.append(
            f"memory {resources['memory'] / GB:g} GB is more than {machine} offers ({offered:.0f} GB)"
        )
    if name == config["head_node_type"] and (resources.get("CPU") or value.get("max_workers")):
        found.append("the head takes no work: CPU 0 and max_workers 0")
    if config["provider"]["type"] == "aws":
        found += aws_faults(node)
    return found


def aws_faults(node: Document) -> list[str]:
    """Keys that EC2's RunInstances does not know, by botocore's model, and what a machine here must have."""
    found = _unknown(node, _run_instances(), "node_config")
    if "ImageId" not in node:
        found.append(
            "node_config has no ImageId: Ray's own choice is Ubuntu 18.04, whose NVIDIA driver is too old"
        )
    if (node.get("MetadataOptions") or {}).get("HttpTokens") != "required":
        found.append("node_config.MetadataOptions.HttpTokens is not required")
    for device in node.get("BlockDeviceMappings") or []:
        if not (device.get("Ebs") or {}).get("Encrypted"):
            found.append("node_config.BlockDeviceMappings: Ebs.Encrypted is not true")
    return found


@cache
def _run_instances() -> Any:
    """What EC2's RunInstances takes; botocore has no types."""
    import botocore.session

    session = botocore.session.get_session()
    return session.get_service_model("ec2").operation_model("RunInstances").input_shape


def _unknown(value: Any, shape: Any, at: str) -> list[str]:
    if shape.type_name == "structure" and isinstance(value, dict):
        known = shape.members
        found = [f"{at}.{key}: EC2 has no such key" for key in value if key not in known]
        return found + [
            line
            for key, part in value.items()
            if key in known
            for line in _unknown(part, known[key], f"{at}.{key}")
        ]
    if shape.type_name == "list" and isinstance(value, list):
        return [line for i, part in enumerate(value) for line in _unknown(part, shape.member, f"{at}[{i}]")]
    if shape.type_name in ("structure", "list"):
        return [f"{at}: expected a {'mapping' if shape.type_name == 'structure' else 'list'}"]
    allowed = getattr(shape, "enum", None)
    return (
        [f"{at}: {value} is none of {', '.join(allowed)}"]
        if allowed and len(allowed) < 20 and value not in allowed
        else []
    )
