"""The steps: each measures some figures, and can be run alone."""

import os
import statistics

import plot
from figure import at_least, at_most, ratio, ratio_of_all
from lab import user_us_per_delivery
from plot import Point

MIB = 1 << 20
CORES = len(os.sched_getaffinity(0))


def memory_shared(lab):
    """User memory of idle streams of one channel"""
    rest, each = idle_memory(lab, "bench")
    return [
        at_most(150, "B", "user memory per idle stream, one channel", each),
        at_most(10, "MiB", "resident memory at rest, one worker", rest),
    ]


def memory_channels(lab):
    """User memory of idle streams with a channel each, whose name has 20 bytes"""
    _, each = idle_memory(lab, "courses/state/{nnnnnn}")
    return [at_most(500, "B", "user memory per idle stream, a channel each", each)]


def idle_memory(lab, path, *options):
    """Memory at rest, and bytes per stream, of some servers with one worker."""
    rest, each = [], []
    for _ in range(few(lab)):
        with lab.server("--workers", 1, *options) as server:
            report = lab.bench(
                f"{server.url}/{path}",
                *("--streams", lab.small(18_000, 1000), "--messages", 1, "--idle", "2s"),
                *("--redis", server.redis, "--server-pid", server.pid),
            )
        rest.append(report["server"]["resident_bytes"]["before"] / MIB)
        each.append(report["server"]["bytes_per_idle_stream"])
    return rest, each


def memory_after_burst(lab):
    """What is left of the memory that a burst took, and that streams took which have left"""
    streams = lab.small(10_000, 1000)
    settled, kept = [], []
    for _ in range(few(lab)):
        with lab.server("--workers", CORES) as server:
            burst = ["--messages", 20, "--burst", 20, "--idle", "2s", "--settle", "3s"]
            many = memory_of(lab, server, streams, *burst, "--keep", streams // 10)
        with lab.server("--workers", CORES) as server:
            tenth = memory_of(lab, server, streams // 10, "--messages", 1, "--idle", "2s")
        settled.append(many["settled"] / many["idle"])
        kept.append(many["kept"] / tenth["idle"])
    return [
        at_most(1.3, "x", "memory after a burst, beside as many idle streams", settled),
        at_most(1.3, "x", "memory after 9 of 10 have left, beside as many idle streams", kept),
    ]


def memory_of(lab, server, streams, *options):
    options = ["--streams", streams, *options, "--redis", server.redis]
    report = lab.bench(f"{server.url}/bench", *options, "--server-pid", server.pid)
    return report["server"]["resident_bytes"]


def accept(lab):
    """Time per accepted stream: head parsed, subscribed, head sent"""
    streams = lab.small(20_000, 1000)
    with lab.server("--workers", CORES) as server:
        options = ["--streams", streams, "--messages", 1, "--idle", "500ms"]
        compared = lab.compare(server, CORES, *options)

    cost = compared.both(lambda report: cpu_us(report, "per_stream_us"))
    return [ratio("<=", 1.2, "CPU per accepted stream, to the bare loop's", *cost)]


def fan_out_1(lab):
    """One message at a time to 10,000 streams, one worker"""
    return fan_out(lab, 1)[0]


def fan_out_2(lab):
    """One message at a time, 3 per second, to 10,000 streams, two workers"""
    figures, compared = fan_out(lab, 2)
    for name in ("p50", "p99"):
        both = compared.both(lambda report: report["latency_ms"][name])
        figures.append(ratio("<=", 1.05, f"{name} at 3 per second, to the bare loop's", *both))
    return figures


def fan_out(lab, workers):
    options = ["--streams", lab.small(10_000, 1000), "--messages", 10, "--rate", 3]
    with lab.server("--workers", workers) as server:
        compared = lab.compare(server, workers, *options, "--idle", "300ms")
    plural = "" if workers == 1 else "s"
    named = f"{workers} worker{plural}"
    wall = compared.both(lambda report: report["last_stream_ms"]["median"])
    user_ns = 1000 * user_us_per_delivery(compared.servers)
    figures = [
        ratio("<=", 1.0, f"time to the last of 10,000 streams, {named}, to the bare loop's", *wall),
        at_most(300, "ns", f"user CPU per delivery, {named}", [user_ns]),
    ]
    return figures, compared


def burst(lab):
    """A burst of 20 messages to 10,000 streams"""
    options = ["--streams", lab.small(10_000, 1000), "--messages", 20, "--burst", 20]
    with lab.server("--workers", CORES) as server:
        compared = lab.compare(server, CORES, *options, "--idle", "300ms")
    both = compared.both(lambda report: report["deliveries"]["per_second"])
    return [ratio(">=", 8, "deliveries per second of a burst, to the bare loop's", *both)]


def history(lab):
    """What keeping events costs: fan-out, idle memory, Redis"""
    load = ["--streams", lab.small(10_000, 1000), "--messages", 10, "--rate", 3, *KEPT]
    with lab.redis() as redis:
        with lab.server("--workers", CORES, "--redis", redis, *KEPT) as server:
            compared = lab.compare(server, CORES, *load, "--idle", "300ms")
        kept, plain = redis_us_per_event(lab, redis)
    wall = compared.both(lambda report: report["last_stream_ms"]["median"])
    user_ns = 1000 * user_us_per_delivery(compared.servers)
    _, each = idle_memory(lab, "bench", *KEPT)
    return [
        ratio("<=", 1.0, "time to the last of 10,000 streams with history, to bare loop", *wall),
        at_most(300, "ns", "user CPU per delivery with history", [user_ns]),
        at_most(150, "B", "user memory per idle stream with history", each),
        at_most(None, "µs", "CPU of Redis per event with history, nobody subscribed", kept),
        at_most(None, "µs", "CPU of Redis per plain PUBLISH, nobody subscribed", plain),
    ]


def redis_us_per_event(lab, redis):
    """What Redis spends on events with history, and on plain ones, in turn."""
    events = lab.small(200_000, 2000)

    def cost(path, *options):
        before = redis.cpu_seconds()
        load = ["--streams", 0, "--messages", events, "--rate", "max", "--redis", redis]
        lab.bench(f"{NOBODY}/{path}", *load, *options)
        return 1e6 * (redis.cpu_seconds() - before) / events

    costs = [(cost("kept", *KEPT), cost("plain")) for _ in range(few(lab))]
    return zip(*costs, strict=True)


KEPT = ["--history", 100]

# No stream is opened there.
NOBODY = "http://127.0.0.1:1/events"


def resume(lab):
    """50,000 streams come back at once, at random places of the last 50 events of 100 channels"""
    return returning(lab, 1, "50,000 streams that come back")


def resume_8(lab):
    """The same with streams of 8 channels each, at random places of the last 50 events of all 8"""
    return returning(lab, 8, "50,000 streams of 8 channels that come back")


def returning(lab, width, who):
    streams = lab.small(50_000, 1000)
    returns, openings = [], []
    with lab.redis() as redis:
        past = ["--streams", 0, "--channels", 100, "--messages", 5000, "--rate", "max"]
        lab.bench(f"{NOBODY}/past-{{n}}", *past, "--history", 50, "--redis", redis)
        fresh = ["--messages", 100, "--rate", "max"]
        for number in range(min(5, lab.rounds)):
            rounds = [
                lambda: returns.append(storm(lab, redis, streams, width, "past", "--resume")),
                lambda: openings.append(storm(lab, redis, streams, width, "new", *fresh)),
            ]
            for run in rounds if number % 2 == 0 else reversed(rounds):
                run()
    back = [report["resumption"]["seconds"] for report in returns]
    new = [report["streams"]["seconds"] for report in openings]
    reads = [history_reads(report["resumption"]["redis_calls"]) for report in returns]
    resets = sum(report["deliveries"]["resets"] for report in returns)
    return [
        at_most(1999, "", f"readings of history for {who}", reads),
        ratio("<=", 1.5, "time until they are live, to that of as many new streams", back, new),
        at_most(0, "", "of them told of a loss", [resets]),
        at_most(None, "s", "time until they are live", back),
    ]


def storm(lab, redis, streams, width, channel, *options):
    """Streams opened as fast as they can, on a server that has just started."""
    with lab.server("--workers", 4, "--redis", redis, "--history", 50) as server:
        load = ["--streams", streams, "--channels", 100, "--history", 50, "--redis", redis]
        load += ["--closing-after", "500ms", "--open-timeout", "60s", "--server-pid", server.pid]
        load += ["--channels-per-stream", width]
        return lab.bench(f"{server.url}?channel={channel}-{{n}}", *load, *options)


def history_reads(calls):
    """Questions that were sent: by functions, or scripts; each does the rest inside Redis."""
    return sum(calls.get(command, 0) for command in ("fcall_ro", "eval_ro", "eval"))


def channels(lab):
    """100,000 channels with a stream each, 50,000 messages a second at random"""
    # The kernel's clock, which tells the program's time from its own, ticks every 1, 4 or 10 ms:
    # bursts in step with it would always or never be seen.
    load = ["--rate", 50_000, "--burst", 23, "--publishers", 2]
    load += ["--messages", lab.small(600_000, 50_000)]
    reports = []
    with lab.redis() as redis:
        for _ in range(few(lab)):
            # A fresh one each time: subscriptions linger, and the next streams of their channels
            # come to other workers, so that each message would come to two.
            with lab.server(*many_workers(lab), "--redis", redis) as server:
                reports.append(flood(lab, server, *load))
    lost = [report["deliveries"]["lost"] + report["deliveries"]["told"] for report in reports]
    rates = [report["deliveries"]["per_second"] for report in reports]
    return [
        at_most(0, "", "messages lost, 100,000 channels, 50,000 a second", [sum(lost)]),
        at_most(3, "µs", "user CPU per event there", [user_us_per_delivery(reports)]),
        # Or the load was not what it says.
        at_least(0.98 * 50_000, "/s", "messages delivered there", rates),
    ]


def overload(lab):
    """100,000 channels, messages as fast as redis-server takes them, for 30 seconds"""
    seconds = lab.small(30, 2)
    # On cores that it shares with everybody else, Redis would get little, and there would be no
    # flood: it has priority. With still more it takes a core for itself, and leaves too little of
    # two cores to read what it sends: then it closes the links, and all streams are told.
    with lab.redis(niceness=-8) as redis:
        with lab.server(*many_workers(lab), "--redis", redis) as server:
            unlimited = ["--rate", "max", "--publishers", 8]
            pilot = flood(lab, server, *unlimited, "--messages", lab.small(2_000_000, 100_000))
            messages = int(seconds * published_per_second(pilot))
            closing = ["--closing-after", "1s", "--settle", "1s"]
            report = flood(lab, server, *unlimited, *closing, "--messages", messages)
    return overload_figures(report)


def overload_figures(report):
    deliveries, memory = report["deliveries"], report["server"]["resident_bytes"]
    grown = (memory["peak"] - memory["idle"]) / MIB
    others = sum(n for reason, n in deliveries["reset_reasons"].items() if reason != "overload")
    closing = report["closing"]
    streams = report["streams"]["opened"]
    return [
        at_least(300_000, "/s", "messages published in a flood", [published_per_second(report)]),
        at_most(WORKERS * INTAKE_MIB, "MiB", "memory that a flood takes", [grown]),
        at_most(0, "", "streams that lost messages in silence", [deliveries["losers"]]),
        at_most(0, "", "resets for another reason than overload", [others]),
        at_least(streams, "", "streams served a second later", [closing["received"]]),
        at_most(100, "ms", "p99 a second later", [closing["latency_ms"]["p99"]]),
    ]


def flood(lab, server, *load):
    """Messages at random to 100,000 channels with a stream each."""
    streams = ["--streams", lab.small(100_000, 5000), "--order", "random"]
    options = [*streams, *load, "--redis", server.redis, "--server-pid", server.pid]
    return lab.bench(f"{server.url}/bench-{{nnnnnn}}", *options, may_lose=True)


def published_per_second(report):
    return report["messages"]["published"] / report["messages"]["seconds"]


def many_workers(lab):
    """Options of a server whose descriptors suffice for 100,000 streams where a process may have
    20,000; a worker has a table of its own."""
    return ["--workers", WORKERS, "--max-intake", f"{INTAKE_MIB}MiB"]


WORKERS = 8

# The default.
INTAKE_MIB = 64


def million(lab):
    """A million streams in one process, both ends on this machine"""
    streams = lab.small(1_000_000, 20_000)
    times = ["--heartbeat", "60s", "--drain-time", lab.small("30s", "1s")]
    with lab.server("--workers", lab.small(54, 2), *times) as server:
        load = million_load(lab, streams, server)
        ours = lab.bench(f"{server.url}/bench", *load, "--stop-server", "120s", may_lose=True)
        code, errors = server.wait_end(30), server.errors()
    floor = million_floor(lab, streams)
    wall = (report["last_stream_ms"]["each"] for report in (ours, floor))
    held = ours["streams"]["opened"] - ours["streams"]["ended"]
    memory = ours["server"]["resident_bytes"]["peak"] / 1e6
    fault = 0 if code == 0 and not errors and ours["server"]["drain_seconds"] else 1
    return [
        at_least(streams, "", "streams held", [held]),
        at_most(250, "MB", "resident memory with a million streams", [memory]),
        ratio_of_all("<=", 1.1, "time to the last of a million, to the bare loop's", *wall),
        at_most(0, "", "messages lost there", [ours["deliveries"]["lost"]]),
        at_most(0, "", "errors while a million streams are drained", [fault]),
    ]


def million_floor(lab, streams):
    """The report of the bare loop with as many streams."""
    with lab.floor(lab.small(64, 2)) as floor:
        return lab.bench(f"{floor.url}/bench", *million_load(lab, streams, floor))


def million_load(lab, streams, server):
    # Between messages there is time for the slowest of both.
    pause = ["--messages", 2, "--rate", lab.small(0.033, 1), "--patience", "40s"]
    opening = ["--streams", streams, "--open-timeout", "60s", "--idle", "2s"]
    channel = ["--channel", "bench", "--redis", server.redis, "--server-pid", server.pid]
    return [*opening, *pause, *channel]


def others(lab):
    """What else costs something: big events, several channels, merging, a crowd's begin and end"""
    return [*big_events(lab), *several_channels(lab), *merging(lab), *begin_and_end(lab)]


def big_events(lab):
    """The bare loop keeps nothing that a socket does not take at once, so it has no part in it."""
    streams = lab.small(1000, 100)
    rates, memory = [], []
    for _ in range(few(lab)):
        with lab.server("--workers", CORES) as server:
            load = ["--streams", streams, "--bytes", "256KiB", "--messages", 5, "--rate", 1]
            target = ["--redis", server.redis, "--server-pid", server.pid]
            report = lab.bench(f"{server.url}/bench", *load, *target)
        rates.append(0.262144 * streams * 1000 / report["last_stream_ms"]["median"])
        resident = report["server"]["resident_bytes"]
        memory.append((resident["peak"] - resident["idle"]) / MIB)
    return [
        at_least(None, "MB/s", "256 KiB to 1,000 streams", rates),
        at_most(None, "MiB", "memory that it takes", memory),
    ]


def several_channels(lab):
    """A stream of several channels stands in no channel's list, and is served by itself."""
    one = paced(lab, "bench-{n}")
    five = paced(lab, "?channel=bench-{n}&channel=a&channel=b&channel=c&channel=d")
    name = "CPU per delivery to streams of 5 channels, to that of one"
    return [ratio_of_all("<=", None, name, five, one)]


def merging(lab):
    at_once = paced(lab, "bench-{n}", rate=50)
    merged = paced(lab, "bench-{n}", "--coalesce", "1s", rate=50)
    name = "CPU per delivery with --coalesce 1s, 5 messages a second, to that without"
    return [ratio_of_all("<=", None, name, merged, at_once)]


def paced(lab, path, *options, rate=20):
    """CPU per delivery of some servers with 10 channels of 1,000 streams each, in 5 seconds."""
    load = ["--rate", rate, "--messages", lab.small(5 * rate, rate // 2)]
    costs = []
    for _ in range(few(lab)):
        with lab.server("--workers", CORES, *options) as server:
            url = f"{server.url}{path}" if path.startswith("?") else f"{server.url}/{path}"
            streams = ["--streams", lab.small(10_000, 500), "--channels", 10]
            target = ["--channel", "bench-{n}", "--redis", server.redis, "--server-pid", server.pid]
            costs.append(cpu_us(lab.bench(url, *streams, *load, *target), "per_delivery_us"))
    return costs


def begin_and_end(lab):
    """100,000 streams come as fast as they can, and the server is told to end."""
    streams = lab.small(100_000, 5000)
    with lab.server(*many_workers(lab), "--drain-time", "1s") as server:
        load = ["--streams", streams, "--messages", 1, "--redis", server.redis]
        stop = ["--server-pid", server.pid, "--stop-server", "60s"]
        report = lab.bench(f"{server.url}/bench", *load, *stop, may_lose=True)
        code = server.wait_end(30)
    opened = [report["streams"]["per_second"]]
    return [
        at_least(None, "/s", "streams opened per second, 100,000", opened),
        at_most(None, "s", "their end, --drain-time 1s", [report["server"]["drain_seconds"]]),
        at_most(0, "", "exit code of that server", [code]),
    ]


def cpu_us(report, what):
    return sum(report["server"][what][kind] for kind in ("user", "system"))


def growth(lab):
    """Deliveries per second from 1,000 to 1,000,000 streams, beside the bare loop's"""
    sizes = GROWTH[: lab.small(len(GROWTH), 1)]
    points = [growth_point(lab, **size) for size in sizes]
    # The step of a million has measured that, and takes minutes.
    if (last := lab.earlier("million")) and not lab.is_quick:
        ours, floor = (delivery_rates(report) for report in last["reports"])
        points.append(Point(last["reports"][0]["streams"]["opened"], ours, floor))
    plot.write(lab.results / "growth.svg", points)
    name = "deliveries per second at {:,} streams, to the bare loop's"
    return [
        ratio_of_all(">=", None, name.format(point.streams), point.ours, point.floor)
        for point in points
    ]


def growth_point(lab, streams, workers, rounds, messages, rate):
    load = ["--streams", streams, "--messages", messages, "--rate", rate, "--idle", "300ms"]
    with lab.server("--workers", workers) as server:
        compared = lab.compare(server, workers, *load, rounds=min(rounds, lab.rounds))

    def median_rate(report):
        return statistics.median(delivery_rates(report))

    return Point(streams, *compared.both(median_rate))


def delivery_rates(report):
    """Of each message: all its deliveries, over the time until the last one."""
    streams = report["streams"]["opened"]
    return [1000 * streams / milliseconds for milliseconds in report["last_stream_ms"]["each"]]


GROWTH = [
    {"streams": 1_000, "workers": CORES, "rounds": 15, "messages": 10, "rate": 30},
    {"streams": 10_000, "workers": CORES, "rounds": 5, "messages": 10, "rate": 3},
    {"streams": 100_000, "workers": WORKERS, "rounds": 3, "messages": 3, "rate": 0.3},
]


def few(lab):
    """Repetitions of what hardly varies."""
    return min(3, lab.rounds)


# In the order in which they run.
ALL = {
    step.__name__.replace("_", "-"): step
    for step in (
        memory_shared,
        memory_channels,
        memory_after_burst,
        accept,
        fan_out_1,
        fan_out_2,
        burst,
        history,
        resume,
        resume_8,
        channels,
        overload,
        million,
        growth,
        others,
    )
}
