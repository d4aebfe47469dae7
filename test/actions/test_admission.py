from uuid import UUID

import numpy as np
import pytest
from gate_world import MS, ROBOT, STEP_NS, T0, chunk

from vla_trt_ros.actions.admission import Admission, Admitted
from vla_trt_ros.datatypes import ActionSpace, ChunkFlag, Reason

ROWS = [[0.1, 0.2], [0.3, 0.4]]
A, B, C = (UUID(int=i).bytes for i in (1, 2, 3))


def admission(**options) -> Admission:
    return Admission(ROBOT, dry_run=options.get('dry_run', False))


def test_a_good_chunk_gives_its_rows_and_until_when_they_may_run():
    admitted = admission().check(chunk(T0, ROWS, valid_from=1), T0 + 20 * MS)
    assert isinstance(admitted, Admitted)
    assert admitted.rows == pytest.approx(np.array(ROWS))
    assert admitted.until_ns == T0 + 600 * MS
    assert (admitted.start_ns, admitted.step_ns, admitted.valid_from) == (T0, STEP_NS, 1)


def test_reordered_columns_are_put_in_the_robots_order():
    admitted = admission().check(chunk(T0, ROWS, names=('elbow', 'shoulder')), T0)
    assert admitted.rows == pytest.approx(np.array([[0.2, 0.1], [0.4, 0.3]]))


@pytest.mark.parametrize(
    ('fields', 'reason', 'counter', 'words'),
    [
        ({'names': ('shoulder', 'wrist')}, Reason.BAD_ACTION, 'chunk_bad', 'use a bundle made fo'),
        ({'rows': [[0.1, np.nan]]}, Reason.BAD_ACTION, 'chunk_bad', 'row 0 of elbow is nan'),
        ({'rows': [[np.inf, 0.0]]}, Reason.BAD_ACTION, 'chunk_bad', 'row 0 of shoulder is inf'),
        ({'rows': [[0.1], [0.2]]}, Reason.BAD_ACTION, 'chunk_bad', r'shape (2, 1), not (rows, 2)'),
        ({'rows': np.ones((0, 2))}, Reason.BAD_ACTION, 'chunk_bad', 'shape (0, 2)'),
        ({'step_ns': 20 * MS}, Reason.BAD_ACTION, 'chunk_bad', '20.0 ms, at this control_rate'),
        (
            {'action_space': ActionSpace.JOINT_DELTA},
            Reason.BAD_ACTION,
            'chunk_bad',
            'JOINT_DELTA, the gate takes JOINT_POSITION',
        ),
        ({'start': 1001}, Reason.CLOCK, 'chunk_from_future', '1001 ms ahead'),
        ({'start': 51, 'observed': 51}, Reason.CLOCK, 'chunk_from_future', '51 ms ahead'),
        ({'start': -500, 'observed': -601}, Reason.STALE_CHUNK, 'chunk_old', '601 ms old'),
        ({'start': -100}, Reason.STALE_CHUNK, 'chunk_past', 'over 0 ms before'),
        ({'flags': ChunkFlag.DRY_RUN}, Reason.DISABLED, 'chunk_dry_run', 'without dry_run'),
    ],
)
def test_what_is_refused_says_why(fields, reason, counter, words):
    rows = fields.pop('rows', ROWS)
    start = T0 + fields.pop('start', 0) * MS
    observed = T0 + fields.pop('observed', 0) * MS
    refusal = admission().check(chunk(start, rows, observation_ns=observed, **fields), T0)
    assert (refusal.reason, refusal.counter) == (reason, counter)
    assert words in refusal.text


def test_a_dry_run_gate_takes_dry_run_chunks():
    checked = admission(dry_run=True).check(chunk(T0, ROWS, flags=ChunkFlag.DRY_RUN), T0)
    assert isinstance(checked, Admitted)


def sequence(*chunks: tuple[bytes, int]) -> list[str]:
    gate = admission()
    checked = [gate.check(chunk(T0, ROWS, run_id=run, chunk_id=i), T0) for run, i in chunks]
    return ['ok' if isinstance(c, Admitted) else c.counter for c in checked]


def test_ids_must_rise_within_a_run():
    assert sequence((A, 4), (A, 4), (A, 3), (A, 7)) == [
        'ok',
        'chunk_out_of_order',
        'chunk_out_of_order',
        'ok',
    ]


def test_a_restarted_policy_takes_over_and_the_old_one_stays_out():
    past = 'chunk_of_past_run'
    assert sequence((A, 9), (B, 0), (A, 10), (C, 0), (B, 1), (C, 1)) == [
        'ok',
        'ok',
        past,
        'ok',
        past,
        'ok',
    ]


def test_a_refused_chunk_changes_no_order():
    gate = admission()
    gate.check(chunk(T0, ROWS, run_id=A, chunk_id=1), T0)
    gate.check(chunk(T0, [[np.nan, 0.0]], run_id=B, chunk_id=50), T0)
    assert isinstance(gate.check(chunk(T0, ROWS, run_id=A, chunk_id=2), T0), Admitted)


def test_forget_admits_any_run_again():
    gate = admission()
    for run in (A, B):
        gate.check(chunk(T0, ROWS, run_id=run, chunk_id=5), T0)
    gate.forget()
    assert isinstance(gate.check(chunk(T0, ROWS, run_id=A, chunk_id=0), T0), Admitted)
