"""The miniature's page: claim by claim, one HTML file that opens without a network."""

from collections.abc import Sequence
from pathlib import Path

import jinja2

from vit_jax import atomic, pictures
from vit_jax.experiments.miniature.distances import IMAGES, Distances
from vit_jax.experiments.miniature.distances import draw as draw_distances
from vit_jax.experiments.report.record import read_run
from vit_jax.experiments.studies.page import as_page, draw, verdicts
from vit_jax.experiments.studies.running import CellResult, planned
from vit_jax.experiments.studies.study import Study
from vit_jax.experiments.sweep_runs import command_of
from vit_jax.runs.cost import Cost


def write_page(
    study: Study,
    results: Sequence[CellResult],
    distances: Distances,
    workdir: Path,
    seeds: Sequence[int],
    command: str,
) -> Path:
    """Writes `index.html` in the directory of the runs, in one step; returns its path.

    Args:
      command: that makes the whole again.
    """
    page = as_page(study, results)
    costs = [result.cost for result in results if result.cost is not None]
    first = planned(study.cells[0], workdir, seeds[0])
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("page.html").render(
        study=study,
        page=page,
        verdicts=verdicts(study, results),
        notes=page.notes[len(study.claims) :],
        drawing=_within_page(draw(study, results, ".svg")),
        distances=distances.verdicts,
        # All seeds of the ViT may have diverged.
        distances_drawing=_within_page(pictures.as_bytes(draw_distances(distances), ".svg"))
        if distances.means
        else None,
        images=IMAGES,
        seeds=len(seeds),
        cost=Cost.total(costs) if len(costs) == len(results) else None,
        versions=", ".join(
            f"{key.removeprefix('packages.')} {value}"
            for key, value in read_run(first.directory).flat_versions()
            if key != "command"
        ),
        command=command,
        commands=[command_of(planned(cell, workdir, seeds[0])) for cell in study.cells],
    )
    path = workdir / "index.html"
    atomic.write_bytes(path, text.encode())
    return path


def _within_page(drawing: bytes) -> str:
    """The element of an SVG file, without what belongs to a file."""
    text = drawing.decode()
    return text[text.index("<svg") :]
