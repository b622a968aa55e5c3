#!/usr/bin/env bash
# What a Rust team would write: axum's Sse, a tokio broadcast channel, the redis client (axum/).
source "$(dirname "$0")/lib.sh"

install_peer() {
    cargo build --quiet --release --locked --manifest-path "$peers/axum/Cargo.toml" \
        --target-dir "$built/axum"
}

serve_peer() {
    local port
    port=$(free_port)
    launch "$built/axum/release/axum-baseline" "127.0.0.1:$port" "$REDIS" "$workers"
    wait_until_streams "http://127.0.0.1:$port/events/$channel" || fail
    say version "axum $(locked axum), tokio $(locked tokio), redis $(locked redis)"
    say url "http://127.0.0.1:$port/events/$channel"
    say pid "${launched[0]}"
    fed_by_redis
}

# locked PACKAGE: its version in the lock file.
locked() {
    sed -n "/^name = \"$1\"\$/{n; s/^version = \"\(.*\)\"\$/\1/p}" "$peers/axum/Cargo.lock"
}

main "$@"
