"""What steps work with: the server, Redis, the load generator, and what they have measured."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
READY_SECONDS = 10


class Lab:
    """One run of a step: starts what the step asks for, and keeps what it has found."""

    def __init__(self, corecast, results, rounds, is_quick):
        self.corecast = corecast
        self.results = results
        self.rounds = rounds
        self.is_quick = is_quick
        self.commands = []
        self.reports = []

    def small(self, usual, quick):
        """A size: the usual one, or one that only shows that the step works."""
        return quick if self.is_quick else usual

    def note(self, command):
        """Keeps a command line, without the place of the binary on this host."""
        name = "corecast" if command[0] == self.corecast else command[0]
        self.commands.append(shlex.join([name, *command[1:]]))

    @contextlib.contextmanager
    def server(self, *options):
        """A server with these options, which is gone afterwards."""
        command = [self.corecast, "--log-level", "warn"]
        for listener in ("--listen", "--broker-listen", "--admin-listen"):
            command += [listener, "127.0.0.1:0"]
        command += [str(option) for option in options]
        self.note(command)
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
            try:
                yield Server(process, log)
            finally:
                end(process)

    @contextlib.contextmanager
    def redis(self, niceness=0):
        """A Redis server without persistence, which is gone afterwards."""
        if not shutil.which("redis-server"):
            subprocess.run([ROOT / "tests/install", "fast"], check=True)
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "no", "--loglevel", "warning"]
        self.note(command)
        with tempfile.TemporaryDirectory() as directory:
            process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL)
            try:
                with contextlib.suppress(PermissionError):
                    os.setpriority(os.PRIO_PROCESS, process.pid, niceness)
                wait_for_port(port)
                yield Redis(process.pid, f"redis://127.0.0.1:{port}")
            finally:
                end(process)

    @contextlib.contextmanager
    def floor(self, workers):
        """The bare loop, for what is no comparison in rounds."""
        command = [self.corecast, "floor", "--channel", "bench", "--workers", str(workers)]
        self.note(command)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(command, **pipes, text=True)
        try:
            yield Floor(process)
        finally:
            end(process)

    def earlier(self, step):
        """What an earlier run of a step has left, if there is one."""
        file = self.results / f"{step}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def bench(self, url, *options, may_lose=False):
        """Runs the load generator, and returns its report."""
        command = [self.corecast, "bench", url, "--json", *(str(option) for option in options)]
        self.note(command)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0 and not (may_lose and done.stdout):
            raise StepError(f"{shlex.join(command)}\n{done.stderr}")
        report = json.loads(done.stdout)
        self.reports.append(report)
        return report

    def compare(self, server, workers, *options, rounds=None):
        """Rounds of the server and of the bare loop in turn."""
        comparison = ["--compare-floor", rounds or self.rounds, "--floor-workers", workers]
        options = [*options, "--redis", server.redis, "--server-pid", server.pid, *comparison]
        return Compared(self.bench(f"{server.url}/bench", *options))


class Server:
    def __init__(self, process, log):
        self.process = process
        self.pid = process.pid
        self.log = log
        # The last line before the server takes streams names the admin listener.
        self.url = self.redis = None
        for line in process.stdout:
            if match := re.match(r"  streams  (http://[^/]*/events)", line):
                self.url = match[1]
            if match := re.match(r"  publish  (redis://\S+)", line):
                self.redis = match[1]
            if line.startswith("  admin "):
                break
        if not self.url or not self.redis:
            raise StepError(f"the server did not start: {self.errors()}")
        # What starting has left to do must not count as the first streams' cost.
        time.sleep(0.5)

    def errors(self):
        """What it has said on stderr."""
        self.log.seek(0)
        return self.log.read().strip()

    def wait_end(self, seconds):
        """Its exit code once it has ended; None if it does not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None


class Redis:
    def __init__(self, pid, url):
        self.pid = pid
        self.url = url

    def __str__(self):
        return self.url

    def cpu_seconds(self):
        """What it has spent so far, in the program and in the kernel."""
        stat = pathlib.Path(f"/proc/{self.pid}/stat").read_text()
        # Behind the name, which may hold anything, utime and stime are the 12th and 13th (proc(5)).
        ticks = sum(int(word) for word in stat.rpartition(")")[2].split()[11:13])
        return ticks / os.sysconf("SC_CLK_TCK")


class Floor:
    def __init__(self, process):
        self.pid = process.pid
        streams, broker = (process.stdout.readline().strip() for _ in range(2))
        self.url = f"http://{streams}/events"
        self.redis = f"redis://{broker}"


class Compared:
    """Rounds of the server and of the bare loop."""

    def __init__(self, report):
        self.servers = report["server"]
        self.floors = report["floor"]

    def both(self, figure):
        """A figure of all rounds, of both sides."""
        return [figure(round) for round in self.servers], [figure(round) for round in self.floors]


class StepError(Exception):
    """Why a step has no result."""


def user_us_per_delivery(reports):
    """User time of all rounds together: of a single one, the kernel's clock ticks too seldom."""
    deliveries = [report["deliveries"]["received"] for report in reports]
    times = [report["server"]["per_delivery_us"]["user"] for report in reports]
    total = sum(time * count for time, count in zip(times, deliveries, strict=True))
    return total / sum(deliveries)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port):
    deadline = time.monotonic() + READY_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise StepError(f"nobody listens on port {port}")
        time.sleep(0.01)


def end(process):
    """Ends a process, which need not be there any more."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(READY_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
