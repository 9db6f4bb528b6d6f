"""A Slurm cluster of two nodes, both of them this machine, whose daemons end with the test.

It needs Debian's packages slurm-wlm and munge, and root: slurmd starts jobs as their users. Nothing
of the system's own Slurm is read or written.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

_NODES = ("node1", "node2")
_GPUS = 8


class Cluster:
    """Commands of Slurm, for the cluster of one configuration file."""

    def __init__(self, configuration: Path) -> None:
        self._environment = os.environ | {
            "SLURM_CONF": str(configuration),
            # The `python` of the scripts.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def __call__(self, *command: str, **environment: str) -> str:
        """Runs a command to its end and returns what it printed."""
        done = subprocess.run(
            command,
            env=self._environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What the controller knows of a job, as JobState and Restarts."""
        return dict(re.findall(r"(\w+)=(\S*)", self("scontrol", "show", "job", number)))


def wait_until(
    condition: Callable[[], bool], told: Callable[[], str], seconds: float = 120
) -> None:
    """Returns when the condition holds; `told` says what was seen if it does not in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, told()
        time.sleep(0.2)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Starts the daemons, and ends them with all jobs."""
    missing = [name for name in ("munged", "slurmctld", "slurmd") if shutil.which(name) is None]
    assert not missing, f"no {', '.join(missing)} here: apt-get install slurm-wlm munge"
    assert os.geteuid() == 0, "slurmd must be started by root"
    # A socket's path must be short, so this is no directory of pytest.
    root = Path(tempfile.mkdtemp(prefix="slurm-"))
    root.chmod(0o755)  # Without this munged does not start: no user could reach its socket.
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        _start(stack, _munged(root))
        wait_until((root / "munge.socket").exists, lambda: "munged does not start", 20)
        environment = {"SLURM_CONF": str(_write_configuration(root))}
        _start(stack, ["slurmctld", "-D"], environment)
        for node in _NODES:
            _start(stack, ["slurmd", "-D", "-N", node], environment)
        slurm = Cluster(root / "slurm.conf")

        def logs() -> str:
            return "\n".join(path.read_text()[-2000:] for path in root.glob("*.log"))

        def idle() -> bool:
            done = subprocess.run(
                ["sinfo", "--noheader", "--format=%T %D"],
                env=os.environ | environment,
                capture_output=True,
                text=True,
            )
            return done.stdout.split() == ["idle", str(len(_NODES))]

        wait_until(idle, logs, 30)
        stack.callback(_end_jobs, slurm)
        yield slurm


def _end_jobs(slurm: Cluster) -> None:
    slurm("scancel", "--signal=KILL", "--full", "--user=root")
    slurm("scancel", "--user=root")
    wait_until(lambda: slurm("squeue", "--noheader") == "", lambda: slurm("squeue"), 60)


def _start(
    stack: ExitStack, command: list[str], environment: Mapping[str, str] | None = None
) -> None:
    process = subprocess.Popen(
        command,
        env=os.environ | (environment or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def end() -> None:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)

    stack.callback(end)


def _munged(root: Path) -> list[str]:
    """The command of a daemon of its own, by which the others know that a user is who he says."""
    key = root / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    files = {"key-file": "key", "socket": "socket", "log-file": "log"}
    files |= {"pid-file": "pid", "seed-file": "seed"}
    return ["munged", "--foreground", *(f"--{k}={root / f'munge.{v}'}" for k, v in files.items())]


def _write_configuration(root: Path) -> Path:
    """The cluster's: https://slurm.schedmd.com/slurm.conf.html."""
    gpus = root / "gpus"
    gpus.mkdir()
    for number in range(_GPUS):
        (gpus / f"gpu{number}").touch()  # Slurm wants a file for each.
    nodes = f"node[1-{len(_NODES)}]"
    (root / "gres.conf").write_text(f"NodeName={nodes} Name=gpu File={gpus}/gpu[0-{_GPUS - 1}]\n")
    (root / "state").mkdir()
    host, ports = socket.gethostname(), _free_ports(1 + len(_NODES))
    lines = {
        "ClusterName": "test",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": ports[0],
        "SlurmUser": "root",
        # A job that is queued again waits until the credentials of its start are void.
        "AuthInfo": f"socket={root}/munge.socket,cred_expire=5",
        "StateSaveLocation": root / "state",
        "SlurmdSpoolDir": root / "spool-%n",
        "SlurmctldPidFile": root / "slurmctld.pid",
        "SlurmdPidFile": root / "slurmd-%n.pid",
        "SlurmctldLogFile": root / "slurmctld.log",
        "SlurmdLogFile": root / "slurmd-%n.log",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "SchedulerParameters": "sched_interval=1",
        "ReturnToService": 2,
        "SlurmdParameters": "config_overrides",
        "GresTypes": "gpu",
    }
    text = "".join(f"{key}={value}\n" for key, value in lines.items())
    for number, node in enumerate(_NODES, 1):
        text += f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[number]} "
        text += f"CPUs=64 Gres=gpu:{_GPUS}\n"
    text += f"PartitionName=main Nodes={nodes} Default=YES State=UP\n"
    (root / "slurm.conf").write_text(text)
    return root / "slurm.conf"


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [each.getsockname()[1] for each in sockets]
