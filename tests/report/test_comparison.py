from typing import Any

from uniemo_ray.report.comparison import compare
from uniemo_ray.report.summary import Summary


def test_rounds_stand_between_what_they_must_beat_and_what_they_aim_at(summary: Summary) -> None:
    table = compare(summary)
    assert table.columns == ("Plain prompt", "Round 0", "Round 1", "Real test images", "Ceiling")
    assert table.columns[table.newest] == "Round 1"
    assert table.images == ("320", "800", "800", "1,000", "–")
    assert all(len(row.cells) == 5 for row in table.understanding + table.generation)


def test_cells_stand_in_their_columns(summary: Summary) -> None:
    rows = {row.metric.key: row.cells for row in compare(summary).understanding + compare(summary).generation}
    accuracy = [cell.split("\N{NO-BREAK SPACE}")[0] for cell in rows["accuracy"]]
    found = [f"{100 * item.understanding.accuracy:.1f}" for item in summary.rounds]
    assert accuracy == ["–", *found, "–", "80.9"]
    emo_a = [cell.split("\N{NO-BREAK SPACE}")[0] for cell in rows["emo_a_clip"]]
    assert emo_a == ["31.2", "63.4", "68.1", "80.6", "–"]
    assert rows["fd_clip"] == ("4.731", "4.731", "4.731", "–", "–")


def test_metrics_nobody_measured_have_no_row(summary: Summary) -> None:
    keys = {row.metric.key for row in compare(summary).generation}
    assert keys.isdisjoint({"fid", "lpips_alex", "sem_c", "sem_d"})
    assert "sem_d_clip" in keys


def test_without_references_and_ceiling_only_rounds_remain(values: dict[str, Any]) -> None:
    values["dataset"]["ceiling"] = None
    values["references"] = {}
    values["rounds"][1]["generation"] = None
    table = compare(Summary.model_validate(values))
    assert table.columns == ("Round 0", "Round 1")
    assert table.images == ("800", "–")
    assert {row.cells[1] for row in table.generation} == {"–"}
