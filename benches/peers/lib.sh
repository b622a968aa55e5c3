# What the scripts of the peers share. Each of them is called in two ways:
#
#   NAME.sh install    puts the peer under target/peers; the machine itself stays as it is
#   NAME.sh serve      starts it on free loopback ports, waits until it streams, says on stdout where
#                      and how it is to be loaded, and ends it by pid once standard input ends
#                      (try it: ./NAME.sh serve | tr '\0' '\n')
#
# and defines what these do: `install_peer` and `serve_peer`. `run` sets:
#
#   WORKERS    threads or processes that hold streams, the same for every peer
#   CORES      the cores of every server, as taskset(1) takes them
#   REDIS      URL of the Redis that peers subscribe to
set -euo pipefail

peers=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$peers/../.." && pwd)
built=$root/target/peers
workers=${WORKERS:-2}

# What every peer streams: one channel.
channel=bench

# say KEY VALUE: tells `run` something. Values may hold line feeds, so it ends with a NUL.
say() {
    printf '%s %s\0' "$1" "$2"
}

# Says that messages come through the Redis that all such peers share.
fed_by_redis() {
    say option --redis
    say option "$REDIS"
    say option --channel
    say option "$channel"
}

# fed_by_post URL: says that messages come in requests to the peer.
fed_by_post() {
    say option --publish-url
    say option "$1"
}

# Says that the peer takes requests before it has answered earlier ones, so that the messages of a
# burst can arrive as closely as they do through Redis.
pipelined() {
    say option --publish-ahead
    say option 20
}

# debian FOLDER PACKAGE…: unpacks Debian packages, and those that they need and this machine lacks,
# below a folder. Nothing is installed, so no service starts.
debian() {
    local folder=$1 missing package
    shift
    [[ ! -e $folder/complete ]] || return 0
    rm -rf "$folder"
    mkdir -p "$folder"
    as_root apt-get update -qq || echo "the lists of packages may be old" >&2
    missing=$(apt-get install --simulate --no-install-recommends "$@" |
        sed -n 's/^Inst \([^ ]*\).*/\1/p')
    # Those named are wanted here even if the machine has them. The user that apt would become may
    # not write to this folder.
    (cd "$folder" && printf '%s\n' "$@" "$missing" | sort -u | sed '/^$/d' |
        xargs apt-get download -qq -o APT::Sandbox::User=root)
    for package in "$folder"/*.deb; do
        dpkg -x "$package" "$folder"
        rm "$package"
    done
    touch "$folder/complete"
}

free_port() {
    python3 -c '
import socket
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    print(listener.getsockname()[1])'
}

# launch COMMAND…: starts a process of the server, on the cores of servers, with all descriptors
# that it may have. Its input stays open: some servers take the end of it for a request to end.
launch() {
    ulimit -n "$(ulimit -Hn)"
    taskset -c "${CORES:-0-$((workers - 1))}" "$@" <&"$held" >>"$directory/log" 2>&1 &
    launched+=($!)
}

as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi
}

# children PID: the processes that a process has started.
children() {
    cat "/proc/$1/task/$1/children"
}

# wait_until_streams URL: until the server answers with an event stream, for 20 seconds at most.
wait_until_streams() {
    python3 - "$1" <<'END'
import http.client, sys, time, urllib.parse

url = urllib.parse.urlsplit(sys.argv[1])
until = time.monotonic() + 20
while True:
    connection = http.client.HTTPConnection(url.netloc, timeout=5)
    try:
        target = url.path + "?" * bool(url.query) + url.query
        connection.request("GET", target, headers={"Accept": "text/event-stream"})
        answer = connection.getresponse()
        kind = answer.getheader("Content-Type", "")
        if answer.status == 200 and kind.startswith("text/event-stream"):
            break
        problem = f"{answer.status}, {kind or 'no Content-Type'}"
    except (OSError, http.client.HTTPException) as error:
        problem = error
    finally:
        connection.close()
    if time.monotonic() > until:
        sys.exit(f"{sys.argv[1]} does not stream: {problem}")
    time.sleep(0.05)
END
}

# Ends what was launched, last first: by pid, kindly, and after five seconds no longer so.
end_servers() {
    local pid turn number
    for ((number = ${#launched[@]} - 1; number >= 0; number--)); do
        pid=${launched[number]}
        kill "$pid" 2>/dev/null || continue
        for ((turn = 0; turn < 100; turn++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.05
        done
        kill -KILL "$pid" 2>/dev/null || true
    done
    wait
    rm -rf "$directory"
}

# Ends the script when a server has not come to stream, and shows what it wrote.
fail() {
    tail -n 20 "$directory/log" >&2
    exit 1
}

main() {
    case ${1:-} in
    install)
        mkdir -p "$built"
        install_peer
        ;;
    serve)
        launched=()
        mkdir -p "$built"
        directory=$(mktemp -d "$built/serve.XXXXXX")
        trap end_servers EXIT
        trap 'exit 1' INT TERM
        mkfifo "$directory/held"
        exec {held}<>"$directory/held"
        touch "$directory/log"
        serve_peer
        say ready yes
        cat >/dev/null
        ;;
    *)
        echo "usage: $0 install|serve" >&2
        exit 2
        ;;
    esac
}
