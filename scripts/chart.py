#!/usr/bin/env python3
"""Renders deploy/helm/tapio with Helm's own engine: the program `helm` if it is installed, else the
library in the Python package helm-python-sdk, which scripts/render-chart.sh installs.

usage: chart.py --kustomize FOLDER | [--namespace NAME] [--release NAME] [VALUES.yaml...]
"""
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parent.parent / "deploy/helm/tapio"


class RenderError(Exception):
    """The chart refuses the values, or can't be rendered."""


def merged(base, over):
    """`over` over `base`, as Helm merges the files of values."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}


def with_program(values, release, namespace):
    command = ["helm", "template", release, str(CHART), "--namespace", namespace, "--values", "-"]
    run = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True)
    if run.returncode != 0:
        raise RenderError(run.stderr)
    return run.stdout


def with_library(values, release, namespace):
    import helm_python

    with helm_python.Chart.load(CHART) as chart:
        try:
            chart.validate_schema(values)
            files = chart.render(values, name=release, namespace=namespace)
        except helm_python.HelmError as error:
            raise RenderError(str(error)) from error
    documents = (text for name, text in sorted(files.items()) if name.endswith(".yaml"))
    return "\n---\n".join(documents)


def render(values=None, release="tapio", namespace="tapio"):
    """Returns the chart's YAML documents as text.

    Raises RenderError with Helm's message.
    """
    engine = with_program if shutil.which("helm") else with_library
    return engine(values or {}, release, namespace)


def objects(text):
    """The documents that aren't empty."""
    return [document for document in yaml.safe_load_all(text) if document]


NAMESPACE = """\
apiVersion: v1
kind: Namespace
metadata:
  name: tapio
  labels:
    # Agents use the network and folders of the node.
    pod-security.kubernetes.io/enforce: privileged
"""

KUSTOMIZATION = """\
# Rendered from deploy/helm/tapio by scripts/render-chart.sh --kustomize; not edited by hand.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
"""


def kustomize_files():
    """The files of deploy/kustomize/base by name: the chart with its default values."""
    files = {"namespace.yaml": NAMESPACE}
    for text in re.split(r"(?m)^---\n", render()):
        # Plain YAML belongs to no release of Helm.
        of_helm = r" *(helm.sh/chart|app.kubernetes.io/managed-by|checksum/config):|#|$"
        lines = [line.rstrip() for line in text.splitlines()]
        lines = [line for line in lines if not re.match(of_helm, line)]
        if lines:
            text = "\n".join(lines).replace("      annotations:\n    spec:", "    spec:") + "\n"
            found = yaml.safe_load(text)
            files[f"{found['kind'].lower()}-{found['metadata']['name']}.yaml"] = text
    names = "".join(f"  - {name}\n" for name in sorted(files))
    return {**files, "kustomization.yaml": KUSTOMIZATION + names}


def main():
    options, values, arguments = {"release": "tapio", "namespace": "tapio"}, {}, sys.argv[1:]
    if arguments[:1] == ["--kustomize"]:
        folder = Path(arguments[1])
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.yaml"):
            old.unlink()
        for name, text in kustomize_files().items():
            (folder / name).write_text(text)
        return
    while arguments:
        argument = arguments.pop(0)
        if argument.startswith("--") and argument[2:] in options and arguments:
            options[argument[2:]] = arguments.pop(0)
        else:
            values = merged(values, yaml.safe_load(Path(argument).read_text()) or {})
    try:
        sys.stdout.write(render(values, **options))
    except RenderError as error:
        sys.exit(f"chart: {error}")


if __name__ == "__main__":
    main()
