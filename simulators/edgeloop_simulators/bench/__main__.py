"""Runs every benchmark and prints its table."""

import tempfile
from pathlib import Path

from rich.console import Console

from edgeloop_simulators.bench.footprint import footprint_rows
from edgeloop_simulators.bench.inference import inference_rows
from edgeloop_simulators.bench.ingest import ingest_rows
from edgeloop_simulators.bench.model import bench_model
from edgeloop_simulators.bench.reconcile import reconcile_rows
from edgeloop_simulators.bench.serve import serve_rows
from edgeloop_simulators.bench.table import show
from edgeloop_simulators.bench.trust import trust_rows


def main() -> None:
    console = Console()
    model = bench_model()
    with tempfile.TemporaryDirectory(prefix="edgeloop-bench-") as made:
        directory = Path(made)
        show("On the device", footprint_rows(model, directory), console)
        show("The runner's hot path", inference_rows(model, directory), console)
        show("The inference endpoint", serve_rows(model, directory), console)
        show("Signed models", trust_rows(directory), console)
        show("In the middle", ingest_rows(directory), console)
        show("A tick of the reconciler", reconcile_rows(model, directory), console)


if __name__ == "__main__":
    main()
