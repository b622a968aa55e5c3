"""Runs steps, prints their figures, and writes what was measured to benches/results."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

import steps
from figure import Figure
from lab import ROOT, Lab, StepError

RESULTS = ROOT / "benches/results"
ROUNDS = 21


def main():
    options = arguments()
    if options.list:
        for name, step in steps.ALL.items():
            print(f"{name:20} {step.__doc__}")
        return 0
    corecast = os.environ.get("CORECAST") or build()
    results = options.results
    results.mkdir(parents=True, exist_ok=True)
    # What is wrong with a step keeps no other from running.
    failed = [
        name
        for name in options.steps or steps.ALL
        if not run(name, Lab(corecast, results, options.rounds, options.quick))
    ]
    write_table(results)
    if failed:
        print(f"without a result: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def arguments():
    parser = argparse.ArgumentParser(prog="benches/run", description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="NAME", help="steps to run (all)")
    parser.add_argument("--list", action="store_true", help="show the steps")
    parser.add_argument("--rounds", type=int, help=f"rounds of each comparison ({ROUNDS})")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few rounds of few streams: shows that a step works, and measures nothing",
    )
    parser.add_argument("--results", type=pathlib.Path, help="where results go (benches/results)")
    options = parser.parse_args()
    for name in options.steps:
        if name not in steps.ALL:
            parser.error(f"no step {name!r}: expected one of {', '.join(steps.ALL)}")
    options.rounds = options.rounds or (2 if options.quick else ROUNDS)
    # What measures nothing must not replace what did.
    quick = ROOT / "target/quick-results"
    options.results = options.results or (quick if options.quick else RESULTS)
    return options


def build():
    """The binary of the release profile."""
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or "target")
    return str(ROOT / target / "release/corecast")


def run(name, lab):
    """Whether a step has a result."""
    step = steps.ALL[name]
    print(f"{name}: {step.__doc__}", flush=True)
    start = time.monotonic()
    try:
        figures = step(lab)
    except StepError as error:
        print(f"  no result: {error}", file=sys.stderr, flush=True)
        return False
    for figure in figures:
        print(
            f"  {figure.verdict():7}{figure.name}: {figure.shown_value()}, "
            f"bound {figure.shown_bound()}"
        )
    seconds = time.monotonic() - start
    print(f"  {seconds:.0f} s", flush=True)
    result = {
        "step": name,
        "what": step.__doc__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": host(),
        "seconds": round(seconds),
        "commands": lab.commands,
        "figures": [figure.to_json() for figure in figures],
        "reports": lab.reports,
    }
    (lab.results / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    return True


def host():
    """What every figure depends on."""
    with open("/proc/cpuinfo") as lines:
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "kernel": platform.release(),
        "cpu": models[0] if models else "unknown",
        "cores": cores,
        "memory_gib": round(memory_gib, 1),
    }


def write_table(results):
    """All figures that there are, as Markdown."""
    lines = ["| figure | bound | measured | | step |", "|---|---|---|---|---|"]
    runs = [results / f"{name}.json" for name in steps.ALL]
    runs = [json.loads(file.read_text()) for file in runs if file.exists()]
    for result in runs:
        for figure in map(Figure.from_json, result["figures"]):
            lines.append(
                f"| {figure.name} | {figure.shown_bound()} | {figure.shown_value()} "
                f"| {figure.verdict()} | `{result['step']}` |"
            )
    hosts = {
        f"Linux {host['kernel']}, {host['cores']} x {host['cpu']}, {host['memory_gib']:.0f} GiB"
        for host in (result["host"] for result in runs)
    }
    dates = sorted(result["date"][:10] for result in runs)
    if dates:
        period = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        lines += ["", f"{'; '.join(sorted(hosts))}; {period}; load generator on the same cores."]
    (results / "table.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
