#!/usr/bin/env bash
# The floor, no rival: accept, a fixed response head, one send() per stream and message. A server
# that sends each message on its own cannot do better.
source "$(dirname "$0")/lib.sh"

install_peer() {
    "$peers/corecast.sh" install
}

serve_peer() {
    local port
    port=$(free_port)
    launch "$root/target/release/corecast" floor --listen "127.0.0.1:$port" --redis "$REDIS" \
        --workers "$workers" --channel "$channel"
    wait_until_streams "http://127.0.0.1:$port/events/$channel" || fail
    say version "$("$root/target/release/corecast" --version)"
    say url "http://127.0.0.1:$port/events/$channel"
    say pid "${launched[0]}"
    fed_by_redis
}

main "$@"
