#!/usr/bin/env bash
# durable-streams, a server in Rust that keeps streams in files and has an epoll loop per core for
# those who follow them; fed by POST.
source "$(dirname "$0")/lib.sh"

version=0.1.5
folder=$built/durable-streams-$version
program=$folder/bin/durable-streams-server

install_peer() {
    [[ -x $program ]] || cargo install --quiet --locked --version "$version" --root "$folder" \
        --target-dir "$folder/build" durable-streams
}

serve_peer() {
    local port
    port=$(free_port)
    # `memory` acknowledges a message without writing it to disk, as a PUBLISH does. Its loops are
    # as many as the cores it may use, which taskset has limited.
    launch "$program" --host 127.0.0.1 --port "$port" --data-dir "$directory/data" \
        --durability memory --worker-threads "$workers"
    create_stream "http://127.0.0.1:$port/$channel" || fail
    wait_until_streams "http://127.0.0.1:$port/$channel?offset=now&live=sse" || fail
    say version "durable-streams $version"
    say url "http://127.0.0.1:$port/$channel?offset=now&live=sse"
    say pid "${launched[0]}"
    fed_by_post "http://127.0.0.1:$port/$channel"
    pipelined
    # It joins messages into one event; on lines of their own they can be told apart.
    say option --publish-body
    say option $'{message}\n'
}

# create_stream URL: for 20 seconds at most.
create_stream() {
    python3 - "$1" <<'END'
import sys, time, urllib.request

request = urllib.request.Request(sys.argv[1], method="PUT", headers={"Content-Type": "text/plain"})
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
until = time.monotonic() + 20
while True:
    try:
        opener.open(request, timeout=5).close()
        break
    except OSError as error:
        if time.monotonic() > until:
            sys.exit(f"{sys.argv[1]} cannot be created: {error}")
    time.sleep(0.05)
END
}

main "$@"
