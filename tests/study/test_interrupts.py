"""Studies that are interrupted, killed or out of disk space lose no finished record and can be resumed."""

from __future__ import annotations

import builtins
import errno
import functools
import os
import random
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest
from small_study import DATA, small_study, without_time
from study_process import (
    FORK_SERVER,
    SECONDS,
    TRAININGS,
    executing,
    has_ended,
    norms_and_end,
    num_lines,
    started,
    study,
    study_on_full_disk,
    tasks_of,
    wait_until,
)

from renyi_lab.study import Study, run_study

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and fork servers of POSIX")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
NUM_TRAININGS = 8


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    """Those of the study when nothing disturbs it."""
    return without_time(small_study(TRAININGS, min_accuracy=0))


def read_quietly(path: Path) -> Study:
    """The records of a file, all of whose lines are whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Study.read(path)


def end_at_random(
    path: Path, signum: int, moment: random.Random, *backend: str, release_after: Callable[[], None] = lambda: None
) -> None:
    """Start or resume a study and end it after some further records; what was in the file stays.

    A later training waits in its measure, so that no study is done before the signal, however fast it is; in a worker
    that goes on, until ``release_after()`` has returned.
    """
    before = path.read_bytes() if path.exists() else b""
    further = moment.randint(1, 2)
    lines = max(1, num_lines(path)) + further
    log, limit = Path(f"{path}.log"), Path(f"{path}.log.limit")
    limit.write_text(str(num_lines(log) + further))
    try:
        with started(study, path, *backend) as process:
            wait_until(lambda: num_lines(path) >= lines or not process.is_alive(), "records")
            time.sleep(moment.uniform(0, 0.02))
            assert process.is_alive()
            os.kill(process.pid, signum)
            process.join(SECONDS)
            assert process.exitcode == (1 if signum == signal.SIGINT else -signum)
        release_after()
    finally:
        limit.unlink()
    assert path.read_bytes().startswith(before)
    assert len(read_quietly(path).records) >= lines - 1


def trained(path: Path) -> list[int]:
    """The process of every training whose measure was taken."""
    return [int(line) for line in Path(f"{path}.log").read_text().split()]


def test_signals_at_random_moments_of_a_serial_study(records: list[dict[str, Any]], tmp_path: Path) -> None:
    path, moment = tmp_path / "records", random.Random(1)
    for number, signum in enumerate(SIGNALS, start=1):
        end_at_random(path, signum, moment)
        assert len(trained(path)) <= len(read_quietly(path).records) + number  # each signal costs one training at most
    assert without_time(study(path)) == records
    assert len(trained(path)) <= NUM_TRAININGS + len(SIGNALS)


@pytest.mark.parametrize("signum", SIGNALS)
def test_workers_of_loky_end_with_the_study(signum: int, records: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "records"
    end_at_random(path, signum, random.Random(2), "loky")
    workers = set(trained(path))
    assert os.getpid() not in workers
    wait_until(lambda: all(map(has_ended, workers)), "the end of the workers")
    assert without_time(study(path)) == records


@pytest.mark.parametrize(("free", "backend"), [(100, ""), (1500, ""), (1500, "loky")])
def test_a_full_disk_leaves_only_whole_lines(
    free: int, backend: str, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "records"
    with started(study_on_full_disk, path, free, backend) as process:
        process.join(SECONDS)
        assert process.exitcode == 0
    assert path.stat().st_size <= free
    if path.stat().st_size:
        num_records = len(read_quietly(path).records)
        assert num_records >= 1
        # Each worker may have trained another model by the time that the disk is found full.
        assert 1 <= len(trained(path)) - num_records <= (3 if backend else 1)
        wait_until(lambda: all(map(has_ended, trained(path))), "the end of the workers")
    assert without_time(study(path)) == records


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function after whose call no file can be written, as on a read-only file system, also for the super-user."""
    may, opened = os.access, builtins.open

    def access(path: Any, mode: int, **options: Any) -> bool:
        return not mode & os.W_OK and may(path, mode, **options)

    def open_to_read(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wax+"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(file))
        return opened(file, mode, *arguments, **options)

    def begin() -> None:
        monkeypatch.setattr(os, "access", access)
        monkeypatch.setattr(builtins, "open", open_to_read)

    return begin


def test_a_finished_study_needs_no_writing_and_another_is_refused_before_its_first_training(
    read_only: Callable[[], None], records: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "records"
    finished = small_study(TRAININGS, min_accuracy=0, path=path)
    read_only()
    assert small_study(TRAININGS, min_accuracy=0, path=path) == finished
    assert without_time(finished) == records
    before = path.read_bytes()
    for unfinished in (path, tmp_path / "new"):
        began = time.process_time()
        with pytest.raises(ValueError, match="cannot be written"):
            small_study({**TRAININGS, "epochs": 10**6}, min_accuracy=0, path=unfinished)  # would take hours
        assert time.process_time() - began < SECONDS
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["records"]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_backend_multiprocessing_is_refused(n_jobs: int, tmp_path: Path) -> None:
    with joblib.parallel_config("multiprocessing", n_jobs=n_jobs), pytest.raises(ValueError, match="backend='loky'"):
        small_study(TRAININGS, path=tmp_path / "records")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A scheduler of Dask with two worker processes, which gives a training up when its worker ends."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    settings = {
        "distributed.worker.multiprocessing-method": "forkserver",
        "distributed.scheduler.allowed-failures": 0,
        "distributed.comm.timeouts.connect": SECONDS,
        "distributed.logging.distributed": "critical",
    }
    FORK_SERVER.set_forkserver_preload(["renyi_lab.study", "joblib", "distributed"])
    with (
        dask.config.set(settings),
        distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as client,
        joblib.parallel_config("dask"),
    ):
        yield client


def test_workers_of_dask_give_the_same_records(cluster: Any, records: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "records"
    assert without_time(study(path, "dask")) == records
    assert set(trained(path)) == set(cluster.run(os.getpid).values())
    assert read_quietly(path).num_diverged == 0


def test_workers_of_dask_outlive_a_study_and_finish_only_the_training_at_hand(
    cluster: Any, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    path, before, moment = tmp_path / "records", cluster.run(os.getpid), random.Random(3)
    measured: list[int] = []  # when Dask has forgotten the study

    def forgotten() -> None:
        wait_until(lambda: tasks_of(cluster) == 0, "Dask to forget the study", pause=0.05)
        measured.append(len(trained(path)))

    for signum in SIGNALS:
        end_at_random(path, signum, moment, "dask", cluster.scheduler.address, release_after=forgotten)
        wait_until(lambda: executing(cluster) == 0, "the end of the trainings that were running", pause=0.05)
        assert len(trained(path)) <= measured[-1] + len(before)
        assert cluster.run(os.getpid) == before
    assert without_time(study(path, "dask")) == records


def test_a_worker_of_dask_that_ends_ends_the_study(cluster: Any, records: list[dict[str, Any]], tmp_path: Path) -> None:
    path, flag = tmp_path / "records", tmp_path / "flag"
    flag.touch()
    again = functools.partial(
        run_study, TRAININGS, data=DATA, min_accuracy=0, measure=functools.partial(norms_and_end, str(flag)), path=path
    )
    with pytest.raises(RuntimeError, match="Dask gave up a training, since its workers ended"):
        again()
    assert without_time(again()) == records


def test_a_full_disk_ends_a_study_on_dask(
    cluster: Any, records: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, to_disk, calls = tmp_path / "records", os.fsync, iter(range(NUM_TRAININGS))

    def fails_later(descriptor: int) -> None:
        if next(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        to_disk(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails_later)
        with pytest.raises(OSError, match=r"cannot be written to path .*records': No space left on device.* run_study"):
            study(path, "dask")
    assert len(read_quietly(path).records) == 3
    assert without_time(study(path, "dask")) == records
