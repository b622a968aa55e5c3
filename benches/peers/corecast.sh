#!/usr/bin/env bash
# corecast itself, with the options it has by default.
source "$(dirname "$0")/lib.sh"

install_peer() {
    cargo build --quiet --release --manifest-path "$root/Cargo.toml" --target-dir "$root/target"
}

serve_peer() {
    local port admin
    port=$(free_port)
    admin=$(free_port)
    launch "$root/target/release/corecast" serve --listen "127.0.0.1:$port" \
        --admin-listen "127.0.0.1:$admin" --redis "$REDIS" --workers "$workers"
    wait_until_streams "http://127.0.0.1:$port/events/$channel" || fail
    say version "$("$root/target/release/corecast" --version)"
    say url "http://127.0.0.1:$port/events/$channel"
    say pid "${launched[0]}"
    fed_by_redis
}

main "$@"
