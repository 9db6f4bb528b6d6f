"""Settings of every test process and of the processes that tests start."""

import functools
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import bucket_server, hub_server
from tests.bucket_api import Bucket
from tests.eight_devices import EightDevices
from tests.eight_devices import eight_devices as start_eight_devices
from tests.real_processes import COMPILE_FAST

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["VIT_JAX_REPORT"] = "off"  # A page takes seconds, and few tests look at one.
os.environ.setdefault("XLA_FLAGS", COMPILE_FAST)
# The threads of NumPy's and scikit-learn's products wait for each other in loops that keep the
# processors busy: on small arrays that takes three times as long as the products.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts background jobs with Ctrl-C ignored, and nohup all programs with SIGHUP ignored.
# Children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# One cache of compiled programs for all test processes of this session and for what they start,
# since most of them compile the same tiny run. It is new in each session, because JAX does not
# write it atomically: a process that is killed while it writes leaves half a file behind, which
# would cost every later reader a warning.
_CACHE = "JAX_COMPILATION_CACHE_DIR"
_owns_cache = _CACHE not in os.environ
if _owns_cache:
    os.environ[_CACHE] = tempfile.mkdtemp(prefix="vit_jax_tests_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


# The files that take longest, though they hold few tests: with processes, or many steps.
_LONGEST = (
    *("parallel/test_processes.py", "parallel/test_meshes_of_processes.py"),
    *("benchmarks/test_damage.py", "training/test_kills.py", "training/test_long_run.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts the longest files first: one that starts last would leave the other cores idle."""
    first = tuple(f"tests/{file}::" for file in _LONGEST)
    items.sort(key=lambda item: not item.nodeid.startswith(first))


def pytest_unconfigure() -> None:
    """Removes the cache in the process that made it."""
    if _owns_cache:
        shutil.rmtree(os.environ.pop(_CACHE), ignore_errors=True)


@pytest.fixture
def no_compile_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts compile all that they run."""
    monkeypatch.delenv(_CACHE)


@pytest.fixture
def storage_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is the storage of released files, on a server of this machine."""
    folder = tmp_path / "storage"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("VIT_JAX_STORAGE", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield folder
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.Hub]:
    """A Hugging Face Hub of this process, with an empty cache."""
    with hub_server.serving() as hub:
        hub_server.use(hub, tmp_path / "hub_cache", monkeypatch)
        yield hub


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, `gs://bkt`, that this process and those that it starts find."""
    from vit_jax.data.sources import bucket_folder, folder

    # A process lists a folder once; each test has a bucket of this name.
    monkeypatch.setattr(bucket_folder, "_listed", {})
    folder._scan.cache_clear()
    with bucket_server.serving() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server
    folder._scan.cache_clear()


@pytest.fixture(scope="session")
def eight_devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EightDevices]:
    """A process with eight simulated devices, started when the first test asks for it."""
    with start_eight_devices(tmp_path_factory.mktemp("eight_devices") / "log") as process:
        yield process


@pytest.fixture(scope="module")
def shared_programs() -> Iterator[None]:
    """Runs of this file, in this process, trace and compile a step that they share once."""
    from tests.shared_programs import sharing  # Here, since JAX reads its settings when imported.

    with sharing():
        yield
