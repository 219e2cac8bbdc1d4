from __future__ import annotations

import csv
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from lvray.core.errors import RunFolderError
from lvray.ledger.books import Books
from lvray.reporting.compared import compare
from lvray.reporting.facts import read_facts
from lvray.reporting.look import spread
from lvray.reporting.page import answer, write
from lvray.reporting.tables import (
    experiment_table,
    flops_csv,
    forecast_table,
    reason_table,
    stage_table,
    variable_table,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "report.md"


def test_the_whole_report_is_the_golden_one(finished):
    markdown, _ = write(finished)
    assert markdown.read_text() == GOLDEN.read_text()


def test_made_again_the_report_comes_out_the_same(finished):
    first = [path.read_text() for path in write(finished)]
    assert [path.read_text() for path in write(finished)] == first


def test_the_answer_is_one_sentence_with_the_winner_and_its_gain(finished):
    facts = read_facts(finished)
    text = answer(facts, compare(facts))
    assert text.startswith("Rank 8, learning rate 0.01 is best: validation loss")
    assert "below the zero-shot base's 1.0000" in text
    assert "(mean over contexts of 15 and 30 steps) 0.0600 is 0.20 × the base's 0.3000" in text
    assert "ahead of every forecast without a model" in text
    assert "though behind nearest shapes from 15 steps" in text
    assert text.count(". ") == 0


def test_flops_by_stage_add_up_to_what_the_ledger_spent(finished):
    facts = read_facts(finished)
    assert sum(stage.heard + stage.lost for stage in facts.stages) == facts.spent
    assert facts.spent == facts.ledger.balance("spent")
    assert stage_table(facts).rows[-1][0] == "all"


def test_the_csv_has_every_experiment_exactly(finished):
    facts = read_facts(finished)
    rows = [line.split(",") for line in flops_csv(facts).splitlines()[1:]]
    assert len(rows) == len(facts.history.trials)
    spent = sum(int(flops) + int(lost) for *_, flops, lost, _, _ in rows)
    assert spent == facts.spent


def test_the_scores_of_everyone_stand_in_a_file_by_step_variable_and_system(finished):
    with (finished / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    made = read_facts(finished).forecasts["final"]["30+10"]
    errors = np.abs(made.point - made.truth)

    def scores(units, over, name="mae"):
        return [
            float(row[name])
            for row in rows
            if (row["context"], row["forecast"], row["units"], row["over"])
            == ("30", "final", units, over)
        ]

    np.testing.assert_allclose(scores("data", "all"), [errors.mean()], rtol=1e-5)
    np.testing.assert_allclose(scores("data", "step"), errors.mean(axis=(0, 2)), rtol=1e-5)
    np.testing.assert_allclose(scores("data", "variable"), errors.mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(scores("data", "system"), errors.mean(axis=(1, 2)), rtol=1e-5)
    scaled = (errors / made.scale[:, None]).mean()
    np.testing.assert_allclose(scores("scaled", "all"), [scaled], rtol=1e-5)
    floors = made.floors
    np.testing.assert_allclose(floors.mean(axis=1), made.floor)
    for units, expected in (("data", floors), ("scaled", floors / made.scale)):
        found = scores(units, "variable", "rounding_floor")
        np.testing.assert_allclose(found, expected.mean(axis=0), rtol=1e-5)
    assert all(row["rounding_floor"] == "" for row in rows if row["forecast"] == "last value")
    assert {row["forecast"] for row in rows} >= {"baseline", "default", "final", "last value"}
    assert all(row["coverage_80"] == "" for row in rows if row["forecast"] == "last value")


def test_what_a_crash_cost_stands_beside_its_trial(finished):
    facts = read_facts(finished)
    crashed = facts.history.trials["search-11"]
    assert facts.lost(crashed) > 0
    row = next(row for row in experiment_table(facts).rows if row[0] == "search-11")
    assert row[6] != ""
    reasons = {row[0]: row for row in reason_table(facts).rows}
    assert reasons["search-11"][3] == "1"


def test_reasons_stand_word_for_word(finished):
    facts = read_facts(finished)
    for row in reason_table(facts).rows:
        assert row[4] == facts.history.trials[row[0]].reason


def test_models_and_baselines_stand_in_one_table_the_best_first_and_the_winner_in_bold(finished):
    facts = read_facts(finished)
    table = forecast_table(facts, compare(facts)[0])
    errors = [float(row[2]) for row in table.rows]
    assert errors == sorted(errors)
    assert {row[0] for row in table.rows} == {
        "baseline",
        "default",
        "final",
        "last value",
        "context mean",
        "seasonal naive",
        "autoregression",
        "nearest windows",
        "nearest shapes",
    }
    assert [table.rows[place][0] for place in table.strong] == ["final"]


def test_scaled_errors_are_in_scaled_units_and_only_models_have_a_rounding_floor(finished):
    facts = read_facts(finished)
    table = forecast_table(facts, compare(facts)[1])
    columns = {name: place for place, name in enumerate(table.header)}
    for row in table.rows:
        scaled = float(row[columns["MAE, scaled"]])  # a scaled unit is half a data unit
        assert scaled == pytest.approx(2 * float(row[columns["MAE"]]), abs=2e-4)
        assert (row[columns["rounding floor"]] == "0.0025") == (
            row[0] in ("baseline", "default", "final")
        )


def test_bands_have_a_coverage_where_there_are_samples_and_the_caption_says_how_many(finished):
    facts = read_facts(finished)
    table = forecast_table(facts, compare(facts)[1])
    place = table.header.index("in 80 % band")
    covered = {row[0]: row[place] for row in table.rows if row[place]}
    assert covered == {"final": "67 %", "default": "17 %"}
    assert "of final the median of 20 samples at temperature 0.8" in table.note
    assert "of baseline the greedy one" in table.note


@pytest.mark.parametrize(
    ("test", "test_path", "chosen_on"),
    [(0.1, None, False), ("validation", None, True), ("validation", "pelts.csv", False)],
)
def test_it_is_told_whether_trials_were_judged_on_the_systems_that_are_forecast(
    retold, test, test_path, chosen_on
):
    def change(row):
        if row["event"] == "session":
            row["spec"]["data"] |= {"split": {"test": test}, "test_path": test_path}

    copy = retold(change)
    write(copy)
    report = (copy / "report.md").read_text()
    assert ("No decision of the sweep saw them" in report) is not chosen_on
    assert ("on which trials were judged" in report) is chosen_on


def test_without_samples_there_are_no_bands(retold):
    copy = retold(lambda row: None)
    for trial in ("default", "final"):
        shutil.rmtree(copy / "trials" / trial)
    facts = read_facts(copy)
    compared = compare(facts)
    assert not any("band" in name for name in forecast_table(facts, compared[0]).header)
    write(copy)
    assert not (copy / "figures" / "coverage.svg").exists()
    assert "Band columns" not in (copy / "report.md").read_text()


def test_errors_stand_variable_by_variable_for_each_context(finished):
    facts = read_facts(finished)
    table = variable_table(facts, compare(facts))
    assert table.header[1:] == ("prey, 15+10", "predator, 15+10", "prey, 30+10", "predator, 30+10")
    by_name = {row[0]: row[1:] for row in table.rows}
    assert by_name["default"] == ("0.1800",) * 4


def test_the_page_escapes_what_people_wrote_and_loads_nothing(finished):
    _, page = write(finished)
    html = page.read_text()
    assert "Which rank &amp; learning rate &lt;is&gt; best?" in html
    outside = [
        link
        for link in re.findall(r'(?:src|href)="([^"]+)"', html)
        if not link.startswith(("#", "data:"))
    ]
    assert outside == []


def test_figures_are_whole_drawings(finished):
    write(finished)
    drawn = sorted(path.stem for path in (finished / "figures").glob("*.svg"))
    assert drawn == ["coverage", "forecasts", "grid", "horizon", "ledger", "loss", "phase"]
    for path in (finished / "figures").glob("*.svg"):
        assert ET.fromstring(path.read_text()).tag.endswith("svg")


@pytest.mark.parametrize(
    ("trained", "evaluation", "told"),
    [
        ({"search", "final", "default"}, "full", "In training only the rows of the head"),
        ({"final"}, "full", "In the training of some trials only the rows"),
        (set(), "numeric", "In validation and forecasts only the rows of the head"),
        ({"search", "final", "default"}, "numeric", "In training and in validation and forecasts"),
    ],
)
def test_the_report_says_where_rows_of_the_head_are_not_counted(retold, trained, evaluation, told):
    def change(row):
        if row["event"] == "session":
            row["spec"]["evaluation"]["loss"] = evaluation
        if row["event"] == "stage" and row["name"] in trained:
            for trial in row["trials"]:
                trial["config"]["loss"] = "numeric"

    write(copy := retold(change))
    assert f"not hardware FLOPs. {told}" in (copy / "report.md").read_text()


def test_an_unfinished_run_says_so(unfinished):
    markdown, _ = write(unfinished)
    text = markdown.read_text()
    assert "This sweep is not finished" in text
    assert "No winner yet" in text


def test_a_folder_that_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="no run folder"):
        write(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["environment.json", "split.json", "trials/final/forecasts/30+10.npz", "baselines/30+10.npz"],
)
def test_a_damaged_file_is_told_by_its_name(retold, name):
    copy = retold(lambda row: None)
    (copy / name).write_bytes(b"{ torn")
    with pytest.raises(RunFolderError, match=f"{re.escape(name)} is damaged"):
        write(copy)


def test_a_missing_file_is_told_by_its_name(retold):
    copy = retold(lambda row: None)
    (copy / "environment.json").unlink()
    with pytest.raises(RunFolderError, match=r"environment\.json is missing"):
        write(copy)


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "grid").write_text("")
    with pytest.raises(RunFolderError, match="no run folder: a file is there"):
        write(tmp_path / "grid")


def test_a_reason_of_several_lines_stays_in_its_row(retold):
    def change(row):
        if row.get("trial_id") == "search-00" and "reason" in row:
            row["reason"] = "first | line\nsecond line"

    markdown, _ = write(retold(change))
    assert "| search-00 | stopped | 1 | 0 | first \\| line second line |" in markdown.read_text()


def test_an_unfinished_run_says_how_to_go_on_with_it(unfinished):
    markdown, _ = write(unfinished)
    command = "To go on with it: `python -m lvray.sweep runs/invented/sweep.yaml` in the folder that holds runs/."
    assert command in markdown.read_text()


def test_a_run_elsewhere_than_in_runs_says_where_run_folders_are(unfinished):
    elsewhere = unfinished.parent.rename(unfinished.parent.with_name("mine")) / "invented"
    markdown, _ = write(elsewhere)
    assert "sweep mine/invented/sweep.yaml --runs mine`" in markdown.read_text()


def test_a_trial_that_diverged_hides_no_other(retold):
    def change(row):
        heard = row.get("measurement", {})
        if heard.get("trial_id") == "search-00":
            heard["validation_loss"] = "nan"
        if heard.get("trial_id") == "search-01":
            heard["validation_loss"] = 50.0

    copy = retold(change)
    write(copy)
    assert "<!-- diverged -->" in (copy / "figures" / "grid.svg").read_text()
    ticks = re.findall(r"<!-- (\d\.\d) -->", (copy / "figures" / "loss.svg").read_text())
    assert max(map(float, ticks)) < 2


def test_what_other_sweeps_spent_of_a_shared_ledger_is_not_unspent(invented):
    budget = invented.books.free
    invented.books.close_sweep()
    others = Books(invented.books.ledger, "other")
    others.open_sweep(budget)
    others.allow("search", 900, key="1")
    others.reserve("search", "search-0", 800, key="1")
    others.spend("search-0", 700, key="1")
    facts = read_facts(invented.root)
    assert (facts.spent, facts.spent_by_others) == (0, 700)
    write(invented.root)
    told = (invented.root / "figures" / "ledger.svg").read_text()
    assert "other sweeps 700 · 0.1%" in told
    assert "unspent" in told


def test_of_two_trials_in_one_cell_the_better_one_is_drawn(retold):
    def change(row):
        heard = row.get("measurement", {})
        if heard.get("trial_id") == "search-00":
            heard["validation_loss"] = "nan"
        for plan in row.get("trials", ()):
            if plan["trial_id"] == "search-01":
                plan["config"]["learning_rate"] = 0.001

    copy = retold(change)
    write(copy)
    drawn = (copy / "figures" / "grid.svg").read_text()
    assert "<!-- diverged -->" not in drawn
    assert "<!-- 0.886 -->" in drawn


def test_labels_that_would_collide_move_up_and_the_others_stay():
    assert spread([1.0, 5.0, 1.5, 1.1], 1.0) == [1.0, 5.0, 3.0, 2.0]
