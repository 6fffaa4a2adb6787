# SPDX-License-Identifier: LGPL-2.1-or-later
"""`ferry.joblib`: the backend, beside joblib's own."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures.process import BrokenProcessPool

import pytest

numpy = pytest.importorskip("numpy")
joblib = pytest.importorskip("joblib", reason="python3-joblib is not installed")

import ferry  # noqa: E402
import ferry.joblib  # noqa: E402
from joblib import Parallel, delayed  # noqa: E402

TIMEOUT = 20  # seconds


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def drop_pools():
    executors = [pool.executor for pool in ferry.joblib._Pool._idle]
    ferry.joblib._Pool.end_all()
    for executor in executors:
        executor.shutdown()


@pytest.fixture(scope="module", autouse=True)
def nothing_left():
    """When the pools are dropped no process and no thread is left."""
    n_threads = threading.active_count()
    yield
    drop_pools()
    gc.collect()
    assert wait_until(lambda: not multiprocessing.active_children())
    assert wait_until(lambda: threading.active_count() == n_threads)


@pytest.fixture(autouse=True)
def backend():
    with joblib.parallel_backend("ferry", n_jobs=2) as (backend, _):
        yield backend


def square(number):
    return number * number


def pid_after(seconds=0.0):
    time.sleep(seconds)
    return os.getpid()


def pid_beside(folder, n):
    """Waits until as many processes are here at the same time, however long they take to start."""
    os.makedirs(folder, exist_ok=True)
    open(os.path.join(folder, str(os.getpid())), "w").close()
    wait_until(lambda: len(os.listdir(folder)) >= n)
    return os.getpid()


def test_import_registers_it():
    program = (
        "import joblib, ferry, sys\n"
        "assert 'ferry.joblib' not in sys.modules\n"
        "try:\n    joblib.parallel_backend('ferry')\nexcept ValueError: print('unknown')\n"
        "import ferry.joblib\n"
        "with joblib.parallel_backend('ferry') as (backend, n_jobs): print(type(backend).__name__, n_jobs)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "unknown\nFerryBackend -1\n", result.stderr


@pytest.mark.parametrize("batch_size", ["auto", 1, 7, 1000])
@pytest.mark.parametrize("pre_dispatch", ["2 * n_jobs", "all", 5])
def test_results_in_order(batch_size, pre_dispatch):
    parallel = Parallel(batch_size=batch_size, pre_dispatch=pre_dispatch)
    assert parallel(delayed(square)(i) for i in range(300)) == [square(i) for i in range(300)]
    assert parallel([]) == []


def test_order_when_the_first_is_the_slowest():
    delays = [0.3, 0.2, 0.1, 0, 0]
    assert Parallel(batch_size=1)(delayed(wait_and_return)(i, delays[i]) for i in range(5)) == list(range(5))


def wait_and_return(number, seconds):
    time.sleep(seconds)
    return number


def test_runs_in_that_many_processes_and_keeps_them(tmp_path):
    first = set(Parallel()(delayed(pid_beside)(tmp_path / "first", 2) for _ in range(6)))
    assert len(first) == 2 and os.getpid() not in first
    assert set(Parallel()(delayed(pid_beside)(tmp_path / "second", 2) for _ in range(6))) == first
    assert len(set(Parallel(n_jobs=3)(delayed(pid_beside)(tmp_path / "third", 3) for _ in range(9)))) == 3


def test_number_of_jobs(backend):
    cpus = joblib.cpu_count()
    assert backend.effective_n_jobs(-1) == cpus
    assert backend.effective_n_jobs(-2) == max(cpus - 1, 1)
    assert backend.effective_n_jobs(-1000) == 1
    assert backend.effective_n_jobs(5) == 5
    assert backend.effective_n_jobs(None) == 1
    with pytest.raises(ValueError, match="n_jobs == 0"):
        Parallel(n_jobs=0)(delayed(square)(i) for i in range(2))
    assert set(Parallel(n_jobs=1)(delayed(pid_after)() for _ in range(3))) == {os.getpid()}
    assert joblib.effective_n_jobs(2) == 2


def test_batches_grow():
    sizes = []

    class Recorder(ferry.joblib.FerryBackend):
        def apply_async(self, func, callback=None):
            sizes.append(len(func))
            return super().apply_async(func, callback)

    assert Parallel(n_jobs=2, backend=Recorder())(delayed(square)(i) for i in range(4000)) == [
        square(i) for i in range(4000)
    ]
    assert max(sizes) > 20


def test_tasks_are_taken_as_they_are_needed():
    taken = 0

    def tasks():
        nonlocal taken
        for i in range(100):
            taken = i
            yield delayed(wait_and_return)(i, 0.01)

    with pytest.raises(ZeroDivisionError):
        Parallel(batch_size=1)([delayed(divmod)(1, 0), *[delayed(square)(1)] * 3])
    generator = tasks()
    parallel = Parallel(batch_size=1, pre_dispatch=4, timeout=0.001)
    with pytest.raises(TimeoutError):
        parallel(generator)
    assert taken < 90


# ---- what travels ----


def test_what_only_exists_here():
    offset = 3

    class Local:
        def __init__(self, value):
            self.value = value

        def add(self, other):
            return Local(self.value + other.value + offset)

    assert Parallel()(delayed(lambda x: x + offset)(i) for i in range(5)) == [3, 4, 5, 6, 7]
    assert [r.value for r in Parallel()(delayed(Local(1).add)(Local(i)) for i in range(3))] == [4, 5, 6]
    functions = Parallel()(delayed(lambda i: lambda: i)(i) for i in range(3))
    assert [function() for function in functions] == [0, 1, 2]
    assert Parallel()(delayed(functools.partial(lambda a, b: a - b, 10))(b=i) for i in range(3)) == [10, 9, 8]


def test_main_program_needs_no_guard():
    program = (
        "import joblib, ferry.joblib, numpy\n"
        "print('begins')\n"
        "class Thing:\n    def __init__(self, x): self.x = x\n"
        "def double(thing): return Thing(thing.x * 2)\n"
        "with joblib.parallel_backend('ferry', n_jobs=2):\n"
        "    print([t.x for t in joblib.Parallel()(joblib.delayed(double)(Thing(i)) for i in range(4))])\n"
        "    def later(x): return x + 1\n"
        "    print(joblib.Parallel()(joblib.delayed(later)(i) for i in range(3)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-"], input=program, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout == "begins\n[0, 2, 4, 6]\n[1, 2, 3]\n", result.stderr


def test_main_program_as_a_file(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(
        "import joblib, ferry.joblib\n"
        "print('begins')\n"
        "def double(x): return 2 * x\n"
        "print(joblib.Parallel(n_jobs=2, backend='ferry')(joblib.delayed(double)(i) for i in range(4)))\n"
    )
    result = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("begins\n[0, 2, 4, 6]\n", "")


def arrays():
    structured = numpy.zeros(1000, [("a", "<i4"), ("b", ">f8")])
    structured["a"] = range(1000)
    read_only = numpy.arange(1000.0)
    read_only.flags.writeable = False
    return {
        "large": numpy.random.default_rng(1).random((1500, 1000)),
        "fortran": numpy.asfortranarray(numpy.arange(60_000.0).reshape(200, 300)),
        "strided": numpy.arange(10_000)[::3],
        "big-endian": numpy.arange(1000, dtype=">i2"),
        "objects": numpy.array([{"a": 1}, None, "x"] * 100, dtype=object),
        "text": numpy.array(["abc", "defgh"] * 300),
        "scalar": numpy.array(3.5),
        "empty": numpy.empty((0, 3)),
        "structured": structured,
        "masked": numpy.ma.masked_less(numpy.arange(2000.0), 1000),
        "matrix": numpy.asmatrix(numpy.arange(400.0).reshape(20, 20)),
        "read-only": read_only,
    }


def describe(array):
    return type(array), array.dtype, array.shape


def test_arrays_of_all_kinds():
    sent = arrays()
    got = Parallel(batch_size=1)(delayed(lambda x: (describe(x["deep"][0]), x))({"deep": [a]}) for a in sent.values())
    for (name, array), (seen, back) in zip(sent.items(), got, strict=True):
        back = back["deep"][0]
        assert seen == describe(array) == describe(back), name
        numpy.testing.assert_array_equal(back, array, name)


def test_arrays_belong_to_the_task(tmp_path):
    array = numpy.zeros(2_000_000)

    def write(array, i):
        before = float(array.sum())
        array[:] = i
        return before

    assert Parallel(batch_size=1)(delayed(write)(array, i + 1) for i in range(6)) == [0.0] * 6
    assert not array.any()
    (result,) = Parallel()([delayed(numpy.ones)(300_000)])
    result += 1
    assert (result == 2).all()


def test_one_object_stays_one():
    array = numpy.arange(5000)
    (same,) = Parallel()([delayed(lambda x, y: x is y[0])(array, [array])])
    assert same


def test_array_that_changes_between_tasks():
    array = numpy.zeros(1_000_000)

    def tasks():
        for i in range(6):
            array[:] = i
            yield delayed(numpy.sum)(array.copy() if i % 2 else array)

    results = Parallel(batch_size=1, pre_dispatch=1)(tasks())
    assert results[1::2] == [1e6, 3e6, 5e6]
    Parallel()(delayed(numpy.sum)(array) for _ in range(3))
    array[-1] = 7
    assert Parallel()(delayed(numpy.sum)(array) for _ in range(3)) == [5e6 + 2] * 3


def test_shared_array_is_written_in_place():
    array = ferry.shared_array(1000, int)

    def write(array, i):
        array[i] = i

    Parallel()(delayed(write)(array, i) for i in range(1000))
    numpy.testing.assert_array_equal(array, range(1000))


def test_memory_map(tmp_path):
    numpy.save(tmp_path / "array.npy", numpy.arange(3000))
    mapped = numpy.load(tmp_path / "array.npy", mmap_mode="r")
    assert Parallel()(delayed(lambda a: int(a.sum()))(mapped[i:]) for i in range(2)) == [4498500, 4498500]


# ---- what fails ----


class LocalError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


def fail(number):
    raise LookupError(f"no {number}")


def test_exception_has_the_workers_traceback():
    with pytest.raises(LookupError, match="no 3") as caught:
        Parallel()(delayed(fail if i == 3 else square)(i) for i in range(10))
    assert "in fail" in str(caught.value.__cause__)
    assert Parallel()(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]


def test_exception_that_only_exists_here():
    class HereError(Exception):
        pass

    def raise_here():
        raise HereError("here")

    with pytest.raises(HereError, match="here"):
        Parallel()(delayed(raise_here)() for _ in range(3))


def test_exception_that_can_not_be_rebuilt():
    def raise_it():
        raise LocalError(1, 2)

    with pytest.raises(TypeError, match="second"):
        Parallel()(delayed(raise_it)() for _ in range(3))
    assert Parallel()(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]


@pytest.mark.parametrize("pre_dispatch", ["all", 2])
def test_what_can_not_be_pickled(pre_dispatch):
    tasks = [delayed(square)(i) for i in range(6)]
    tasks[4] = delayed(square)(threading.Lock())
    with pytest.raises(TypeError, match="pickle"):
        Parallel(batch_size=1, pre_dispatch=pre_dispatch)(tasks)
    with pytest.raises(TypeError, match="pickle"):
        Parallel()([delayed(threading.Lock)(), delayed(square)(1)])
    assert Parallel()(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]


def test_exception_ends_what_runs():
    def fail_soon(i):
        time.sleep(0.05 if i == 0 else 60)
        raise LookupError("soon")

    began = time.monotonic()
    with pytest.raises(LookupError, match="soon"):
        Parallel()(delayed(fail_soon)(i) for i in range(4))
    assert time.monotonic() - began < 20
    assert Parallel()(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]


def test_timeout():
    began = time.monotonic()
    with pytest.raises(ferry.joblib.TimedOutError, match="no result after 0.1 s") as caught:
        Parallel(timeout=0.1)(delayed(time.sleep)(60) for _ in range(3))
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, multiprocessing.TimeoutError)
    assert time.monotonic() - began < 20
    assert Parallel(timeout=TIMEOUT)(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]


def test_exception_of_the_task_that_is_a_timeout():
    def raise_timeout():
        raise TimeoutError("of the task")

    with pytest.raises(TimeoutError, match="of the task"):
        Parallel(timeout=TIMEOUT)(delayed(raise_timeout)() for _ in range(3))


def test_killed_worker():
    with pytest.raises(BrokenProcessPool):
        Parallel()(delayed(os._exit)(1) for _ in range(4))
    assert Parallel()(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]


def test_idle_worker_that_was_killed():
    (pid, *_) = Parallel()(delayed(pid_after)(0.05) for _ in range(4))
    os.kill(pid, 9)
    assert wait_until(lambda: not any(pool._is_usable() for pool in ferry.joblib._Pool._idle if pool._key[0] == 2))
    assert Parallel()(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]


# ---- everything else ----


def test_managed_pool_survives_an_exception():
    with Parallel() as parallel:
        assert parallel(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]
        before = set(parallel(delayed(pid_after)(0.05) for _ in range(4)))
        with pytest.raises(LookupError):
            parallel(delayed(fail)(i) for i in range(4))
        assert parallel(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]
        assert not before & set(parallel(delayed(pid_after)(0.05) for _ in range(4)))


def test_nested_in_threads_and_then_in_order():
    def inner(i):
        backend, _ = joblib.parallel.get_active_backend()
        return os.getpid(), type(backend).__name__, Parallel(n_jobs=2)(delayed(square)(j) for j in range(i))

    results = Parallel()(delayed(inner)(i) for i in range(4))
    assert [result[2] for result in results] == [[square(j) for j in range(i)] for i in range(4)]
    assert {result[1] for result in results} == {"ThreadingBackend"}
    assert os.getpid() not in {result[0] for result in results}


def test_nested_in_processes(tmp_path):
    def inner(i):
        import ferry.joblib  # noqa: F401

        pids = Parallel(n_jobs=2, backend="ferry")(delayed(pid_beside)(tmp_path / str(i), 2) for _ in range(4))
        return os.getpid(), pids

    for pid, pids in Parallel()(delayed(inner)(i) for i in range(2)):
        assert pid not in pids and os.getpid() not in pids and len(set(pids)) == 2


def test_nested_below_threads_there_are_no_processes():
    def inner():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pids = Parallel(n_jobs=2, backend="ferry")(delayed(pid_after)() for _ in range(2))
        return set(pids), [str(warning.message) for warning in caught]

    ((pids, messages),) = Parallel(n_jobs=2, backend="threading")([delayed(inner)()])
    assert pids == {os.getpid()}
    assert any("nested below threads" in message for message in messages)


def test_two_threads_at_once():
    results = {}

    def call(name):
        # The context is of the thread that entered it.
        parallel = Parallel(n_jobs=2, backend="ferry")
        try:
            results[name] = parallel(
                delayed(fail)(i) if name == "bad" and i == 5 else delayed(wait_and_return)(i, 0.02) for i in range(12)
            )
        except LookupError as error:
            results[name] = error

    threads = [threading.Thread(target=call, args=(name,)) for name in ("good", "bad")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert results["good"] == list(range(12))  # although the other one killed its workers
    assert isinstance(results["bad"], LookupError)


def test_threads_of_libraries_are_limited():
    def environment():
        return os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]

    drop_pools()
    expected = os.environ.get("OMP_NUM_THREADS", str(max(joblib.cpu_count() // 2, 1)))
    assert Parallel()([delayed(environment)()])[0][0] == expected
    with joblib.parallel_backend("ferry", n_jobs=2, inner_max_num_threads=3):
        assert Parallel()([delayed(environment)(), delayed(environment)()]) == [("3", "3")] * 2


def test_limited_threads_are_what_blas_has():
    pytest.importorskip("threadpoolctl")

    def count():
        import threadpoolctl

        numpy.ones((2, 2)) @ numpy.ones((2, 2))
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

    with joblib.parallel_backend("ferry", n_jobs=2, inner_max_num_threads=1):
        assert all(threads <= {1} for threads in Parallel()([delayed(count)(), delayed(count)()]))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_start_methods(method):
    with joblib.parallel_backend("ferry", n_jobs=2, start_method=method):
        assert Parallel()(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]
    if method == "forkserver":
        from multiprocessing import forkserver

        drop_pools()
        forkserver._forkserver._stop()


def test_wrong_start_method():
    with pytest.raises(ValueError, match="start_method must be one of .*, not 'thread'"):
        joblib.parallel_backend("ferry", start_method="thread")


def test_idle_workers_end():
    drop_pools()
    with joblib.parallel_backend("ferry", n_jobs=2, idle_worker_timeout=0.2):
        assert Parallel()(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]
    assert multiprocessing.active_children()
    assert wait_until(lambda: not multiprocessing.active_children())


def test_what_needs_shared_memory_runs_in_threads():
    results = []
    Parallel(require="sharedmem")(delayed(results.append)(i) for i in range(5))
    assert sorted(results) == list(range(5))


def test_progress_is_told(capsys):
    Parallel(verbose=10, batch_size=1)(delayed(square)(i) for i in range(5))
    told = capsys.readouterr().err
    assert "Using backend FerryBackend with 2 concurrent workers" in told and "5 out of   5" in told


def test_grid_search_equals_that_of_other_backends():
    pytest.importorskip("sklearn", reason="python3-sklearn is not installed")
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    features, labels = make_classification(600, 40, random_state=1)
    found = {}
    for name in ("sequential", "loky", "ferry"):
        with joblib.parallel_backend(name, n_jobs=1 if name == "sequential" else 2):
            search = GridSearchCV(
                make_pipeline(StandardScaler(), SVC(random_state=1)),
                {"svc__C": [0.1, 1, 10], "svc__gamma": [0.001, 0.01]},
                scoring=lambda model, x, y: float((model.predict(x) == y).mean()),
                cv=4,
            ).fit(features, labels)
            forest = RandomForestClassifier(20, random_state=1).fit(features, labels)
            found[name] = (
                search.best_params_,
                search.cv_results_["mean_test_score"].tolist(),
                search.predict(features).tolist(),
                forest.predict_proba(features).tolist(),
            )
    assert found["ferry"] == found["sequential"] == found["loky"]
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)
