"""The parts of the switch benchmark that work out figures and expectations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.bench.load import HOUR_MS, HOURS, PARTITIONS, START_MS, make_load
from tests.bench.switch import run
from tests.bench.switch.gaps import longest_gap_ms, quantile
from tests.bench.switch.noting import Advanced, Notes, Recovered, read_notes
from tests.bench.switch.steady import ROUNDS_PER_HOUR, closing, expected_of, hours_of, one_round
from tests.bench.switch.versions import DISJOINT, SHARING, write_source, write_versions

if TYPE_CHECKING:
    from pathlib import Path


def advanced(*times_s: float, partition: int = 0) -> list[Advanced]:
    return [Advanced(topic="t", partition=partition, at_s=at_s) for at_s in times_s]


def test_only_gaps_that_a_span_meets_count() -> None:
    found = advanced(0.0, 5.0, 5.1, 5.4, 9.0)
    assert longest_gap_ms(found, [(5.05, 5.2)]) == pytest.approx(300)
    assert longest_gap_ms(found, [(5.05, 5.08)]) == pytest.approx(100)
    assert longest_gap_ms(found, [(4.0, 4.5), (5.2, 5.3)]) == pytest.approx(5_000)
    assert longest_gap_ms(found, [(9.5, 9.9)]) == 0
    assert longest_gap_ms(found, [(0.0, 9.0)], apart_from=[(1.0, 2.0), (6.0, 7.0)]) == (
        pytest.approx(300)
    )


def test_gaps_are_those_of_one_partition() -> None:
    found = [*advanced(0.0, 1.0), *advanced(0.9, 1.1, partition=1)]
    assert longest_gap_ms(found, [(0.0, 2.0)]) == pytest.approx(1_000)


@pytest.mark.parametrize(("q", "value"), [(0.0, 1), (0.5, 2), (0.51, 3), (0.99, 4), (1.0, 4)])
def test_a_quantile_is_one_of_the_values(q: float, value: float) -> None:
    assert quantile([4, 1, 3, 2], q) == value


def test_a_note_that_is_being_written_waits(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    assert read_notes(notes) == Notes()
    notes.write_text("progress t 1 2.5\nrecovery 1.0 2.0\ncheckpoint 3.0 4.5\nprogress t 1 3.")
    assert read_notes(notes) == Notes(
        progress=[Advanced(topic="t", partition=1, at_s=2.5)],
        recoveries=[Recovered(begin_s=1.0, end_s=2.0)],
        checkpoints=[(3.0, 4.5)],
    )


def test_rounds_say_what_their_events_add_up_to() -> None:
    rounds, sensors = ROUNDS_PER_HOUR + 3, 5
    right = expected_of(rounds, sensors)
    count = np.zeros((sensors, 2))
    least = np.full((sensors, 2), np.inf)
    total = np.zeros((sensors, 2))
    for number in range(rounds):
        load = one_round(number, sensors)
        for sensor, at_ms, value in zip(load.sensor, load.at_ms, load.value, strict=True):
            hour = (at_ms - START_MS) // HOUR_MS - HOURS
            count[sensor, hour] += 1
            total[sensor, hour] += value
            least[sensor, hour] = min(least[sensor, hour], value)
    assert (right.count == count).all()
    assert (right.least == least).all()
    assert np.allclose(right.total, total)
    assert hours_of(rounds) == 2


def test_the_closing_events_lie_after_all_rounds() -> None:
    last = one_round(ROUNDS_PER_HOUR, 4).at_ms.max()
    closers = closing(ROUNDS_PER_HOUR + 1)
    assert set(closers.partition) == set(range(PARTITIONS))
    assert (closers.at_ms > last + HOUR_MS - HOUR_MS // ROUNDS_PER_HOUR).all()


def test_a_load_of_many_sensors_has_a_row_for_each_event() -> None:
    load = make_load(40 * HOURS, sensors=40).unclosed
    rows = set(
        zip(load.sensor.tolist(), ((load.at_ms - START_MS) // HOUR_MS).tolist(), strict=True)
    )
    assert load.events == len(rows) == 40 * HOURS


def test_versions_become_files(tmp_path: Path) -> None:
    files = [write_source(tmp_path, "t"), *write_versions(tmp_path, "s", SHARING)]
    assert len({file.read_text() for file in files}) == 4
    assert all(SHARING["1.0.0"].items() >= one.items() for one in SHARING.values())
    wheres = {
        tuple(sorted(it.get("where", "") for it in one.values())) for one in DISJOINT.values()
    }
    assert len(wheres) == 3


def test_sizes_can_be_set_one_by_one() -> None:
    sizes, as_json = run.parse(["--quick", "--rows", "400", "--json"])
    assert (sizes.rows, sizes.small_rows, as_json) == (400, run.QUICK.small_rows, True)
    assert run.parse([]) == (run.Sizes(), False)


@pytest.mark.parametrize("arguments", [["--rows", "3"], ["--events", "many"], ["--slow"]])
def test_wrong_sizes_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.parse(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_the_report_is_flat(capsys: pytest.CaptureFixture[str]) -> None:
    fields = dict.fromkeys(run.Report.__dataclass_fields__, 1)
    run.show(run.Report(**fields), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found == fields
    run.show(run.Report(**fields), as_json=False)
    assert "hot_p99_ms" in capsys.readouterr().out
