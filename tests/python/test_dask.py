# SPDX-License-Identifier: LGPL-2.1-or-later
"""`ferry.dask`: Dask's messages through shared memory, in one process and in clusters of processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

numpy = pytest.importorskip("numpy")
pytest.importorskip("distributed", reason="python3-distributed is not installed")

import dask  # noqa: E402
import dask.array  # noqa: E402
import distributed  # noqa: E402
import ferry.dask  # noqa: E402
from distributed import comm as dask_comm  # noqa: E402
from distributed.comm.core import CommClosedError  # noqa: E402
from distributed.protocol import Serialized, to_serialize  # noqa: E402

LARGE = 300_000  # elements; more than the smallest part that goes through memory, whatever the type
HAS_NO_USER = "needs to be root, to start a process of another user"


def lies_in_ferry(array):
    """Whether the array is a view on a message of Ferry."""
    owner = array
    while owner is not None and type(owner).__name__ != "Buffer":
        owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
    return owner is not None


def mapped_memory():
    """Names of the memory that this process has mapped from Ferry's segments."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return [line.split(None, 5)[5] for line in lines if "memfd:ferry" in line]


def sample_arrays():
    random = numpy.random.default_rng(7)
    integers = random.integers(0, 100, LARGE)
    structured = numpy.zeros(LARGE, numpy.dtype([("a", "<i4"), ("b", ">f8"), ("c", "S3")], align=True))
    structured["a"], structured["b"], structured["c"] = integers, random.random(LARGE), b"xyz"
    read_only = random.random(LARGE)
    read_only.flags.writeable = False
    kinds = "?bBhHiIlLqQefdgFDG"
    arrays = {kind: integers.astype(kind) for kind in kinds}
    arrays |= {
        "big-endian": integers.astype(">i4"),
        "text": integers.astype("U5"),
        "bytes": integers.astype("S4"),
        "void": integers.astype("<i8").view("V8"),
        "time": integers.astype("M8[ns]"),
        "duration": integers.astype("m8[s]"),
        "structured": structured,
        "objects": numpy.array([{"n": int(i)} for i in integers[:1000]], dtype=object),
        "masked": numpy.ma.masked_less(random.random(LARGE), 0.5),
        "fortran": numpy.asfortranarray(random.random((500, 600))),
        "strided": random.random((600, 600))[::2, ::-1],
        "broadcast": numpy.broadcast_to(random.random(LARGE), (3, LARGE)),
        "read-only": read_only,
        "scalar": numpy.array(1.5),
        "empty": numpy.empty((0, 5)),
        "small": numpy.arange(10),
    }
    return arrays


def assert_same(got, sent, name=""):
    assert type(got) is type(sent), name
    assert got.dtype == sent.dtype, name
    assert got.shape == sent.shape, name
    if name == "void":
        assert got.tobytes() == sent.tobytes(), name
    elif isinstance(sent, numpy.ma.MaskedArray):
        assert (got.mask == sent.mask).all(), name
        assert (got.filled() == sent.filled()).all(), name
    else:
        numpy.testing.assert_array_equal(got, sent, name)


# ---- connections, both ends in this process ----


@contextlib.asynccontextmanager
async def connected(scheme="ferry", **arguments):
    """Yield both ends of a connection."""
    accepted = asyncio.get_running_loop().create_future()

    async def handle(comm):
        accepted.set_result(comm)

    listener = await dask_comm.listen(f"{scheme}://127.0.0.1:0", handle, **arguments)
    client = await dask_comm.connect(listener.contact_address, **arguments)
    server = await asyncio.wait_for(accepted, 10)
    try:
        yield client, server
    finally:
        await client.close()
        await server.close()
        listener.stop()


def through_socket(comm):
    """How many bytes were written to the socket so far."""
    return comm.stream._total_write_index


async def pass_on(sender, receiver, obj):
    """Send an object one way; return what arrives and how many bytes of it the socket saw."""
    before = through_socket(sender)
    _, got = await asyncio.gather(sender.write({"x": to_serialize(obj)}), receiver.read())
    return got["x"], through_socket(sender) - before


def test_scheme_is_found_by_metadata():
    program = (
        "import sys\n"
        "from distributed.comm import registry, get_address_host\n"
        "assert 'ferry' not in sys.modules\n"
        "print(type(registry.get_backend('ferry')).__name__, type(registry.get_backend('ferry+tls')).__name__)\n"
        "print(get_address_host('ferry://127.0.0.1:80'))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "FerryBackend FerryTLSBackend\n127.0.0.1\n", result.stderr


def test_ferry_does_not_need_dask():
    program = "import sys, ferry, ferry.queues; print('dask' in sys.modules, 'distributed' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "False False\n"


def test_large_parts_lie_in_memory():
    async def main():
        async with connected() as (client, server):
            assert client.shares_memory and server.shares_memory
            array = numpy.arange(LARGE, dtype=float)
            for sender, receiver in [(client, server), (server, client)] * 2:
                got, n_socket = await pass_on(sender, receiver, array)
                assert_same(got, array)
                assert lies_in_ferry(got)
                assert got.flags.writeable
                assert n_socket < 2000
                got[:] = 0  # nobody else's
                assert array[-1] == LARGE - 1

    asyncio.run(main())


def test_small_messages_open_no_memory():
    async def main():
        async with connected() as (client, server):
            for i in range(10):
                got, n_socket = await pass_on(client, server, numpy.arange(i))
                assert_same(got, numpy.arange(i))
            assert client._outbox is None and server._inbox is None
            assert n_socket < 2000

    asyncio.run(main())


def test_sizes_around_the_minimum():
    async def main():
        async with connected() as (client, server):
            for size in (65535, 65536, 65537, 1 << 20, (1 << 20) + 1):
                array = numpy.random.default_rng(size).integers(0, 255, size, dtype="u1")
                got, n_socket = await pass_on(client, server, array)
                assert_same(got, array)
                assert lies_in_ferry(got) == (size >= 65536)
                assert (n_socket < 2000) == (size >= 65536)

    asyncio.run(main())


def test_dask_own_compression_is_not_used():
    async def main():
        async with connected() as (client, server):
            assert client.handshake_options["compression"] is None
            got, n_socket = await pass_on(client, server, numpy.zeros(LARGE))
            assert lies_in_ferry(got)
            assert n_socket < 2000

    asyncio.run(main())


def test_every_kind_of_array():
    async def main():
        async with connected() as (client, server):
            for name, array in sample_arrays().items():
                got, _ = await pass_on(client, server, array)
                assert_same(got, array, name)
                if name != "objects" and array.nbytes > 10_000:
                    assert lies_in_ferry(got.data if isinstance(got, numpy.ma.MaskedArray) else got), name
                assert got.flags.writeable == array.flags.writeable or name == "broadcast", name

    asyncio.run(main())


def test_many_parts_are_released_one_by_one():
    async def main():
        async with connected() as (client, server):
            arrays = [numpy.full(LARGE, i) for i in range(20)]
            message = {str(i): to_serialize(array) for i, array in enumerate(arrays)}
            _, got = await asyncio.gather(client.write(message), server.read())
            for i, array in enumerate(arrays):
                assert_same(got[str(i)], array)
            committed = client._outbox._channel.statistics.bytes_committed
            del got["3"], got["7"]
            gc.collect()
            client._outbox.trim()
            assert client._outbox._channel.statistics.bytes_committed <= committed - 2 * arrays[0].nbytes
            assert (got["19"] == 19).all()

    asyncio.run(main())


def test_more_parts_than_fit():
    async def main():
        async with connected() as (client, server):
            arrays = [numpy.full(70_000, i, "u1") for i in range(1100)]
            _, got = await asyncio.gather(client.write([to_serialize(array) for array in arrays]), server.read())
            for array, copy in zip(arrays, got, strict=True):
                assert_same(copy, array)
            assert lies_in_ferry(got[1000]) and not lies_in_ferry(got[1099])

    asyncio.run(main())


def test_what_finds_no_room_goes_through_the_socket():
    async def main():
        with dask.config.set({"distributed.comm.ferry.max-bytes": "1 MiB"}):
            async with connected() as (client, server):
                kept = []
                for i in range(6):
                    array = numpy.full(400_000, i, "u1")
                    got, _ = await pass_on(client, server, array)
                    assert_same(got, array)
                    kept.append(got)
                assert [lies_in_ferry(array) for array in kept] == [True, True, False, False, False, False]
                assert_same((await pass_on(client, server, numpy.zeros(LARGE)))[0], numpy.zeros(LARGE))
                del kept, got
                gc.collect()
                assert lies_in_ferry((await pass_on(client, server, array))[0])

    asyncio.run(main())


def test_forwarding_undecoded():
    """What the scheduler does: it hands on what it does not look into."""

    async def main():
        async with connected() as (source, in_), connected() as (out, sink):
            in_.deserialize = False
            array = numpy.random.default_rng(3).random(LARGE)
            _, message = await asyncio.gather(source.write({"x": to_serialize(array)}), in_.read())
            assert isinstance(message["x"], Serialized)
            _, got = await asyncio.gather(out.write(message), sink.read())
            assert_same(got["x"], array)
            assert lies_in_ferry(got["x"])

    asyncio.run(main())


def test_data_outlives_its_connection():
    async def main():
        async with connected() as (client, server):
            got, _ = await pass_on(client, server, numpy.arange(LARGE))
        return got

    got = asyncio.run(main())
    gc.collect()
    assert lies_in_ferry(got)
    assert_same(got, numpy.arange(LARGE))
    got += 1
    assert got[-1] == LARGE


def test_written_before_close_arrives():
    async def main():
        async with connected() as (client, server):
            await pass_on(client, server, numpy.arange(LARGE))
            await client.write(to_serialize(numpy.arange(LARGE) * 2))
            await client.close()
            assert_same(await server.read(), numpy.arange(LARGE) * 2)
            with pytest.raises(CommClosedError):
                await server.read()

    asyncio.run(main())


def test_idle_memory_goes_back(monkeypatch):
    monkeypatch.setattr(ferry.dask, "_IDLE", 0.3)

    async def main():
        async with connected() as (client, server):
            got, _ = await pass_on(client, server, numpy.ones(1_000_000))
            outbox = client._outbox
            assert outbox._channel.statistics.bytes_committed >= got.nbytes
            await asyncio.sleep(1.5 * ferry.dask._IDLE)
            assert outbox._channel.statistics.bytes_committed >= got.nbytes  # it is held
            assert got.all()
            del got
            gc.collect()
            deadline = time.monotonic() + 10
            while outbox._channel.statistics.bytes_committed and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            assert outbox._channel.statistics.bytes_committed == 0
            assert client._timer is None  # an idle connection costs nothing
            assert lies_in_ferry((await pass_on(client, server, numpy.ones(1_000_000)))[0])

    asyncio.run(main())


def test_what_is_sent_does_not_count_as_the_senders(monkeypatch):
    """Dask goes by resident memory when it spills and kills."""
    monkeypatch.setattr(ferry.dask, "_MAPPED_MAX", 8 << 20)

    def resident_shared():
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("RssShmem:")[1].split()[0]) * 1024

    async def main():
        async with connected() as (client, server):
            before = resident_shared()
            arrays = [numpy.ones(4_000_000, "u1") for _ in range(10)]
            kept = []
            for array in arrays:
                _, message = await asyncio.gather(client.write(to_serialize(array)), server.read())
                kept.append(message)
            # Nobody looked at what arrived, so all that is mapped is the sender's.
            assert resident_shared() - before < 12 << 20
            assert all(array.all() for array in kept)
            assert resident_shared() - before > 36 << 20

    asyncio.run(main())


def test_nothing_is_left_of_closed_connections():
    def count():
        gc.collect()
        return len(os.listdir("/proc/self/fd")), len(mapped_memory())

    async def main():
        async with connected() as (client, server):
            for sender, receiver in [(client, server), (server, client)]:
                await pass_on(sender, receiver, numpy.ones(LARGE))

    asyncio.run(main())
    before = count()
    for _ in range(5):
        asyncio.run(main())
    assert count() == before


# ---- no shared memory ----


def test_not_shared_when_turned_off():
    async def main():
        with dask.config.set({"distributed.comm.ferry.shared-memory": False}):
            async with connected() as (client, server):
                assert not client.shares_memory and not server.shares_memory
                array = numpy.random.default_rng(1).random(LARGE)
                got, n_socket = await pass_on(client, server, array)
                assert_same(got, array)
                assert not lies_in_ferry(got)
                assert n_socket > array.nbytes

    asyncio.run(main())


@pytest.mark.parametrize(
    "change",
    [
        {"boot": "another host"},
        {"uid": -1},
        {"version": 0},
        {"pid": 2**22 + 1},
        {"fd": 2**20},
        {"cookie": "0" * 32},
        {"pid": "../1"},
        {"fd": None},
    ],
)
def test_other_hosts_users_and_name_spaces_are_told_apart(change):
    description = ferry.dask._describe_memory()
    assert ferry.dask._can_share(description)
    assert not ferry.dask._can_share({**description, **change})


@pytest.mark.parametrize("remote", [None, {}, {"boot": "x"}, "ferry", 3])
def test_what_is_no_description_is_no_reason_to_fail(remote):
    assert not ferry.dask._can_share(remote)


def test_between_hosts(monkeypatch):
    """One end says what an end on another host would."""
    describe = ferry.dask._describe_memory
    hosts = iter(["here", "there"])
    monkeypatch.setattr(ferry.dask, "_describe_memory", lambda: {**describe(), "boot": next(hosts)})

    async def main():
        async with connected() as (client, server):
            assert not client.shares_memory and not server.shares_memory
            array = numpy.random.default_rng(1).random(LARGE)
            got, n_socket = await pass_on(client, server, array)
            assert_same(got, array)
            assert n_socket > array.nbytes

    asyncio.run(main())


def test_offer_that_can_not_be_opened(monkeypatch):
    async def main():
        async with connected() as (client, server):
            assert client.shares_memory

            def fail(*_):
                raise PermissionError("as if /proc were hidden")

            monkeypatch.setattr(ferry.dask, "_open_of", fail)
            array = numpy.random.default_rng(1).random(LARGE)
            got, n_socket = await pass_on(client, server, array)
            assert_same(got, array)
            assert n_socket > array.nbytes
            # The other end says so with its next message, and nothing is offered any more.
            await pass_on(server, client, 1)
            assert not client.shares_memory and client._outbox is None
            monkeypatch.setattr(ferry.dask, "_JOIN_TIMEOUT", 3600)  # it would be waited for
            got, _ = await asyncio.wait_for(pass_on(client, server, array), 60)
            assert_same(got, array)
            assert client._outbox is None

    asyncio.run(main())


def test_other_end_that_does_not_look_is_not_waited_for():
    async def main():
        async with connected() as (client, server):
            array = numpy.random.default_rng(1).random(LARGE)
            await client.write(to_serialize(array))  # nobody reads, so nobody opens what is offered
            assert_same(await server.read(), array)
            got, n_socket = await pass_on(client, server, array)
            assert_same(got, array)
            assert n_socket < 2000

    asyncio.run(main())


SERVER = """
import asyncio, os, sys
import dask, numpy
import ferry.dask
from distributed.comm import listen
from distributed.protocol import to_serialize

async def handle(comm):
    array = await comm.read()
    await comm.write({"shares": comm.shares_memory, "uid": os.getuid(), "array": to_serialize(array * 2)})

async def main():
    listener = await listen("ferry://127.0.0.1:0", handle)
    print(listener.contact_address, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""


@contextlib.contextmanager
def other_process(**arguments):
    """Yield the address at which another process listens."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **arguments
    ) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


async def ask_for_double(address, array):
    comm = await dask_comm.connect(address)
    await comm.write(to_serialize(array))
    answer = await comm.read()
    await comm.close()
    assert_same(answer["array"], array * 2)
    return answer["shares"], comm.shares_memory, lies_in_ferry(answer["array"])


def test_other_process():
    with other_process() as address:
        assert asyncio.run(ask_for_double(address, numpy.arange(LARGE))) == (True, True, True)


def test_other_process_that_shares_nothing():
    environment = {**os.environ, "DASK_DISTRIBUTED__COMM__FERRY__SHARED_MEMORY": "False"}
    with other_process(env=environment) as address:
        assert asyncio.run(ask_for_double(address, numpy.arange(LARGE))) == (False, False, False)


@pytest.mark.skipif(os.getuid() != 0, reason=HAS_NO_USER)
def test_process_of_another_user(tmp_path):
    tmp_path.chmod(0o777)
    environment = {**os.environ, "HOME": str(tmp_path), "FERRY_REGISTRY": str(tmp_path / "registry.json")}
    environment |= {"XDG_RUNTIME_DIR": str(tmp_path)}
    nobody = {"env": environment, "user": 65534, "group": 65534, "extra_groups": [], "cwd": "/"}
    program = [sys.executable, "-c", "import ferry.dask"]
    if b"No module named 'ferry'" in subprocess.run(program, capture_output=True, check=False, **nobody).stderr:
        pytest.skip("the build lies where no other user may look, in root's home for example")
    with other_process(**nobody) as address:
        assert asyncio.run(ask_for_double(address, numpy.arange(LARGE))) == (False, False, False)


def test_process_in_another_name_space():
    unshare = ["unshare", "--user", "--pid", "--fork", "--map-root-user", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("name spaces can't be made here")
    program = [*unshare, sys.executable, "-c", SERVER]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().strip()
        assert asyncio.run(ask_for_double(address, numpy.arange(LARGE))) == (False, False, False)
        process.stdin.close()


# ---- what is broken ----


def test_broken_envelope_closes_the_connection():
    async def main():
        async with connected() as (client, server):
            await pass_on(client, server, numpy.arange(LARGE))
            client._write_frames(None, [(0, 100)], [b""])  # says that there is something in memory
            with pytest.raises(CommClosedError, match="what it got is not what was sent"):
                await server.read()
            assert server.closed()

    asyncio.run(main())


def test_cancelled_write_closes_the_connection(monkeypatch):
    """Nobody could tell which of the parts that were put belong to the next message."""

    async def main():
        async with connected() as (client, server):
            await pass_on(client, server, numpy.arange(LARGE))
            monkeypatch.setattr(ferry.dask, "OFFLOAD_THRESHOLD", 1)
            entered = asyncio.Event()

            async def offload(*_):
                entered.set()
                await asyncio.sleep(60)

            monkeypatch.setattr(ferry.dask, "offload", offload)
            task = asyncio.create_task(client.write(to_serialize(numpy.arange(LARGE))))
            await asyncio.wait_for(entered.wait(), 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert client.closed()
            with pytest.raises(CommClosedError):
                await client.write(1)
            with pytest.raises(CommClosedError):
                await server.read()

    asyncio.run(main())


def test_object_that_can_not_be_serialized_harms_nothing():
    async def main():
        async with connected() as (client, server):
            with pytest.raises(TypeError):
                await client.write({"x": to_serialize(i for i in ())}, on_error="raise")
            got, _ = await pass_on(client, server, numpy.arange(LARGE))
            assert_same(got, numpy.arange(LARGE))

    asyncio.run(main())


# ---- clusters of processes ----


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, protocol="ferry", dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def workers(client):
    return sorted(client.scheduler_info()["workers"])


def test_arrays_in_a_cluster(client):
    first, second = workers(client)
    assert first.startswith("ferry://")
    arrays = sample_arrays()
    futures = client.scatter(arrays, direct=True, workers=[first], hash=False)
    moved = {
        name: client.submit(lambda array: (lies_in_ferry(array), array), future, workers=[second], pure=False)
        for name, future in futures.items()
    }
    for direct in (True, False):
        got = client.gather(moved, direct=direct)
        for name, array in arrays.items():
            assert_same(got[name][1], array, name)
    assert got["d"][0] and got["structured"][0] and not got["small"][0]


def test_computation_equals_numpy(client):
    source = numpy.random.default_rng(5).random((1200, 1200))
    array = dask.array.from_array(source, chunks=(1200, 200))
    result = (array.rechunk((200, 1200)) @ array.T.rechunk((1200, 300)) + array.mean(axis=0)).compute(scheduler=client)
    numpy.testing.assert_allclose(result, source @ source.T + source.mean(axis=0))
    rolled = array.rechunk((300, 300)).T.rechunk((1200, 200)).compute(scheduler=client)
    numpy.testing.assert_array_equal(rolled, source.T)


def test_large_bytes(client):
    data = os.urandom(900_000)
    future = client.submit(lambda value: value[::-1], data)
    assert future.result() == data[::-1]


def test_killed_worker(shm_folder):
    """Its tasks are done again by those that are left, and nothing remains of it."""
    with (
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, protocol="ferry", dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):

        def combine(left, right):
            time.sleep(0.02)
            return left + right

        level = [client.submit(numpy.full, 500_000, float(i), pure=False) for i in range(32)]
        first = list(level)
        while len(level) > 1:
            level = [client.submit(combine, *pair, pure=False) for pair in zip(level[::2], level[1::2], strict=True)]
        distributed.wait(first[:8], timeout=30)
        pid = next(iter(client.run(os.getpid).values()))
        os.kill(pid, signal.SIGKILL)
        assert (level[0].result(timeout=60) == sum(range(32))).all()
        pids = set(client.run(os.getpid).values())
        assert pid not in pids
        del level, first
    for left in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(left, 0)
    gc.collect()
    assert os.listdir(shm_folder) == []


def test_workers_are_killed_again_and_again():
    """Every result comes, and is right.

    The workers are without Dask's nannies, which in Dask 2022.12 do not always start a worker again, whatever the
    protocol: then none is left in the end.
    """
    n_kills = 60 if "FERRY_TEST_THOROUGH" in os.environ else 4
    chance = random.Random(3)

    def combine(left, right):
        return left + right

    with (
        distributed.LocalCluster(n_workers=0, protocol="ferry", dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        program = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-nanny", "--no-dashboard"]
        program += ["--nthreads", "1", "--memory-limit", "0", "--protocol", "ferry", cluster.scheduler_address]
        with contextlib.ExitStack() as started:

            def start():
                process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                started.callback(process.wait)
                started.callback(process.kill)
                return process

            processes = [start() for _ in range(3)]
            for _ in range(n_kills):
                client.wait_for_workers(2, timeout=60)
                level = [client.submit(numpy.full, 500_000, float(i), pure=False) for i in range(16)]
                while len(level) > 1:
                    pairs = zip(level[::2], level[1::2], strict=True)
                    level = [client.submit(combine, *pair, pure=False) for pair in pairs]
                time.sleep(chance.random() * 0.3)
                victim = chance.randrange(len(processes))
                processes[victim].kill()
                processes[victim].wait()
                processes[victim] = start()
                assert (level[0].result(timeout=60) == sum(range(16))).all()
                assert all(process.poll() is None for process in processes)
                del level


def test_cluster_with_tls():
    pytest.importorskip("cryptography", reason="python3-cryptography is not installed")
    security = distributed.Security.temporary()
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, protocol="ferry+tls", security=security, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert workers(client)[0].startswith("ferry+tls://")
        array = numpy.random.default_rng(2).random(LARGE)
        future = client.scatter(array, direct=True)
        assert client.submit(lies_in_ferry, future).result()
        assert_same(client.gather(future, direct=True), array)
