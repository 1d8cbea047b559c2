"""
Charts 1.13.1 and 1.22.0 with the published example, and with templates in lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart import files
from tests.chart.rendered.rendering import CAN_RENDER, HOW_TO_RENDER, OLD_CHART, component, render
from tests.chart.rendered.rendering import pods as pods_of
from tests.chart.rules import checks, pods
from tests.chart.rules.sidecars import Values

AIRFLOW_2, AIRFLOW_3 = "airflowVersion=2.11.2", "airflowVersion=3.2.2"
CHARTS = {"1.13.1": OLD_CHART, "1.22.0": checks.CHART}
each_chart = pytest.mark.parametrize("chart", CHARTS)
_BLOCKS = re.findall(
    r"```yaml\n(.*?)```", (files.SNIPPETS / "published-example-s3-sync.md").read_text(), re.DOTALL
)
PUBLISHED, CORRECTED = _BLOCKS[2:]


@pytest.fixture(autouse=True)
def needs(chart: str) -> None:
    """
    Skip the test if its chart is missing.
    """
    if not CAN_RENDER:
        pytest.skip(HOW_TO_RENDER)
    if not CHARTS[chart].is_dir():
        pytest.skip("OLD_AIRFLOW_CHART names no folder with chart 1.13.1")


def ours(folder: Path, values: str, chart: str, *settings: str) -> Iterator[tuple[str, Values]]:
    """
    Yield the component and specification of each pod with a sidecar.
    """
    path = folder / "values.yaml"
    path.write_text(values)
    for pod in pods_of(render(folder, (str(path), *settings), chart=CHARTS[chart])):
        if pods.kinds(pod["spec"]):
            yield component(pod), pod["spec"]


def flaws(folder: Path, values: str, chart: str, *settings: str) -> dict[str, list[str]]:
    """
    Return the reasons why the API server would refuse each pod.
    """
    found = ours(folder, values, chart, *settings)
    return {name: list(pods.volume_complaints(spec)) for name, spec in found}


@each_chart
def test_published_example_mounts_a_volume_that_does_not_exist(chart: str, tmp_path: Path) -> None:
    assert {
        "scheduler": ["s3-sync: no volume dags"],
        "webserver": ["sync-perm: no volume dags"],
    } == flaws(tmp_path, PUBLISHED, chart, AIRFLOW_2)


@each_chart
def test_dags_claim_adds_no_volume_to_the_webserver(chart: str, tmp_path: Path) -> None:
    claim = "dags.persistence.enabled=true"

    assert {"scheduler": [], "webserver": ["sync-perm: no volume dags"]} == flaws(
        tmp_path, PUBLISHED, chart, AIRFLOW_2, claim
    )


@each_chart
def test_corrected_example_has_every_volume_and_valid_variables(chart: str, tmp_path: Path) -> None:
    assert {"scheduler": [], "webserver": []} == flaws(tmp_path, CORRECTED, chart, AIRFLOW_2)
    assert [] == checks.environment_complaints(yaml.safe_load(CORRECTED))


@pytest.mark.parametrize("chart", ["1.22.0"])
def test_corrected_example_needs_other_components_on_airflow_3(chart: str, tmp_path: Path) -> None:
    moved = CORRECTED.replace("scheduler:", "dagProcessor:").replace("webserver:", "apiServer:")

    assert {"scheduler": ["s3-sync: no volume dags"]} == flaws(
        tmp_path, CORRECTED, chart, AIRFLOW_3
    )
    assert {"dag-processor": [], "api-server": []} == flaws(tmp_path, moved, chart, AIRFLOW_3)


@each_chart
def test_only_the_newer_chart_renders_templates_in_lists(chart: str, tmp_path: Path) -> None:
    values = files.text("sync-perm.extra.yaml")
    ((_, spec),) = ours(tmp_path, values, chart, AIRFLOW_2)

    assert (chart == "1.13.1") == ("{{" in str(spec))


@pytest.mark.parametrize("chart", ["1.13.1"])
def test_text_that_the_readme_gives_for_1_13_equals_the_rendered_templates(
    chart: str, tmp_path: Path
) -> None:
    values = files.text("sync-perm.extra.yaml")
    (secret,) = re.findall(r"write `RELEASE(-[a-z-]+)`", files.text("README.md"))
    written = values.replace(
        "'{{ include \"airflow_metadata_secret\" . }}'", f"airflow{secret}"
    ).replace("{{ .Values.airflowHome }}", "/opt/airflow")

    ((_, old),) = ours(tmp_path, written, chart, AIRFLOW_2)
    ((_, new),) = ours(tmp_path, values, "1.22.0", AIRFLOW_2)

    def ours_of(spec: Values) -> Values:
        (container,) = (one for one in spec["containers"] if one["name"] == "sync-perm")
        found: Values = container
        return found

    assert ours_of(new) == ours_of(old)
    assert [] == list(pods.volume_complaints(old))


@pytest.mark.parametrize("chart", ["1.13.1"])
def test_old_chart_refuses_a_native_sidecar(chart: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="restartPolicy"):
        list(ours(tmp_path, files.text("kerberos.native.yaml"), chart))
