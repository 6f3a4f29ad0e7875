"""Every check of one checkout."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tools.cluster_check import image, launcher, monitoring, service_config, text_files
from tools.cluster_check.cluster_rules import check_cluster
from tools.cluster_check.documents import build, clusters, parse, repeated
from tools.cluster_check.faults import Document, Fault, NotCheckedError
from tools.cluster_check.pod_rules import check_pods
from tools.cluster_check.pools import check_pools, of_groups, pools_of_run, pools_of_service
from tools.cluster_check.resource_rules import QUEUE, check_resource
from tools.cluster_check.schemas import check_document
from uniemo_ray.config import Config

Check = Callable[[], list[Fault]]


class Manifests:
    """All checks of one checkout."""

    def __init__(self, root: Path, schemas: Path | None = None) -> None:
        """Checks of the checkout at `root`, with the folder of the custom resources' schemas."""
        self.root = root
        self.schemas = schemas
        self.cluster = root / "cluster"

    def checks(self) -> Iterator[tuple[str, Check]]:
        """Every check, by what it looks at."""
        yield from self._texts()
        dockerfile = self.cluster / "image/Dockerfile"
        yield "Dockerfile, files", lambda: image.check_copies(dockerfile, self.root)
        yield "Dockerfile, hadolint", lambda: image.lint(dockerfile)
        config, _ = self._run("")  # its faults are told with the manifests
        wanted = pools_of_run(config) if config else {}
        for path in sorted(self.cluster.glob("launcher/*.yaml")):
            yield path.name, partial(launcher.check_launcher, path, wanted)
            yield f"{path.name}, shellcheck", partial(self._commands, path)
        folders = [self.cluster / "kuberay/base", *sorted(self.cluster.glob("kuberay/overlays/*"))]
        for folder in folders:
            yield from self._build(folder)
        yield from self._monitoring()

    def _texts(self) -> Iterator[tuple[str, Check]]:
        for path in sorted([*self.cluster.rglob("*.yaml"), *self.cluster.rglob("*.yml")]):
            name = str(path.relative_to(self.cluster))
            yield f"{name}, text", partial(_parses, path, name)
            yield f"{name}, yamllint", partial(text_files.check_yaml, path, name)

    def _commands(self, path: Path) -> list[Fault]:
        docs, _ = parse(path.read_text(), path.name)
        return text_files.check_shell(text_files.launcher_commands(docs[0]), path.name) if docs else []

    def _build(self, folder: Path) -> Iterator[tuple[str, Check]]:
        file = str(folder.relative_to(self.cluster / "kuberay"))
        try:
            docs, faults = build(folder, file)
        except NotCheckedError as error:
            yield file, partial(_not_checked, str(error))
            return
        yield file, lambda: faults + repeated(docs, file) + self.check_documents(docs, file)
        for doc in docs:
            yield f"{file}, schemas", partial(check_document, doc, file, self.schemas)

    def check_documents(self, docs: list[Document], file: str) -> list[Fault]:
        """Faults of what Kustomize made of one folder, beyond the schemas."""
        version = pinned(self.root, "ray")
        faults = check_pods(docs, file) + _images(docs, file)
        for cluster in clusters(docs):
            faults += check_cluster(cluster, file, version)
        config, bad_run = self._run(file)
        faults += bad_run
        for doc in docs:
            faults += check_resource(doc, file)
            if doc.get("kind") == "RayService":
                faults += service_config.check_service(doc, file, self.root)
                for cluster in clusters([doc]):
                    served, _ = parse(str(doc["spec"].get("serveConfigV2", "")), file)
                    wanted = pools_of_service(served[0] if served else {})
                    faults += check_pools(wanted, of_groups(cluster), file, cluster.where)
            if doc.get("kind") == "RayJob":
                faults += service_config.check_runtime_env(doc, file)
                run = self.cluster / "kuberay/base/run.yaml"
                bad_entrypoint = service_config.check_entrypoint(doc, file, run)
                faults += bad_entrypoint
                if config and not bad_entrypoint:
                    wanted = pools_of_run(service_config.run_of_entrypoint(doc, run))
                    if QUEUE in (doc["metadata"].get("labels") or {}):
                        del wanted["generate"]  # the job `understanding` makes no images
                    for cluster in clusters([doc]):
                        faults += check_pools(wanted, of_groups(cluster), file, cluster.where)
        return faults

    def _run(self, file: str) -> tuple[Config | None, list[Fault]]:
        return service_config.check_run(self.cluster / "kuberay/base/run.yaml", f"{file}: run.yaml")

    def _monitoring(self) -> Iterator[tuple[str, Check]]:
        folder = self.cluster / "monitoring"
        page = (self.root / "docs/guides/cluster.md").read_text()
        rules, _ = monitoring.read_one(folder / "alerts.yaml")
        tests, _ = monitoring.read_one(folder / "alerts_test.yaml")
        resource, _ = monitoring.read_one(folder / "prometheusrule.yaml")
        yield "monitoring, promtool", lambda: monitoring.check_promtool(folder)
        yield "alerts.yaml", lambda: monitoring.check_alerts(rules, "alerts.yaml", page)
        yield "alerts_test.yaml", lambda: monitoring.check_tested(rules, tests, "alerts.yaml")
        yield (
            "prometheusrule.yaml",
            lambda: monitoring.check_same_rules(rules, resource, "prometheusrule.yaml"),
        )
        yield "dashboard", lambda: monitoring.check_dashboard(folder / "uniemo_dashboard.json")
        for name in ("podmonitor.yaml", "prometheusrule.yaml"):
            docs, _ = parse((folder / name).read_text(), name)
            for doc in docs:
                yield f"{name}, schemas", partial(check_document, doc, name, self.schemas)


def _parses(path: Path, name: str) -> list[Fault]:
    return parse(path.read_text(), name)[1]


def _not_checked(reason: str) -> list[Fault]:
    raise NotCheckedError(reason)


def pinned(root: Path, package: str) -> str:
    """The version of a package in constraints.txt."""
    found = re.search(rf"^{re.escape(package)}==(\S+)$", (root / "constraints.txt").read_text(), re.M)
    return found[1] if found else "not pinned"


def _images(docs: list[Document], file: str) -> list[Fault]:
    """Every image comes from the list in base/kustomization.yaml, with a tag that is not `latest`."""
    faults = []
    for doc in docs:
        for name in re.findall(r"'image': '([^']*)'", str(doc)):
            _, _, tag = name.rpartition("/")[2].partition(":")
            if not tag or tag == "latest":
                faults.append(
                    Fault(file, str(doc["metadata"]["name"]), f"image {name} has no tag of a release")
                )
    return list(dict.fromkeys(faults))
