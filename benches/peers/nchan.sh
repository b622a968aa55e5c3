#!/usr/bin/env bash
# nchan, as Debian has it: a module of nginx, fed by POST. Its Redis mode carries messages in a
# format of its own, which no plain PUBLISH speaks, and would only add work.
source "$(dirname "$0")/lib.sh"

folder=$built/nchan

install_peer() {
    debian "$folder" nginx libnginx-mod-nchan
    # nchan insists on a folder for large messages in this place: the directive that names another
    # one is refused as a duplicate of the built-in default.
    [[ -d /var/lib/nginx ]] || as_root mkdir /var/lib/nginx
}

serve_peer() {
    local port
    port=$(free_port)
    configure "$port" >"$directory/nginx.conf"
    launch "$folder/usr/sbin/nginx" -p "$directory" -e "$directory/log" -c "$directory/nginx.conf"
    wait_until_streams "http://127.0.0.1:$port/sub" || fail
    say version "nchan $(sed -n '/^Package: libnginx-mod-nchan$/,/^$/ s/^Version: //p' \
        <<<"$(apt-cache show libnginx-mod-nchan)" | head -n 1), $("$folder/usr/sbin/nginx" -v 2>&1)"
    say url "http://127.0.0.1:$port/sub"
    for pid in ${launched[0]} $(children "${launched[0]}"); do
        say pid "$pid"
    done
    fed_by_post "http://127.0.0.1:$port/pub"
    pipelined
}

configure() {
    cat <<END
load_module $folder/usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
pid $directory/pid;
worker_processes $workers;
# A worker has a descriptor per stream, and may get all of them.
worker_rlimit_nofile $(ulimit -Hn);
events {
    worker_connections $(($(ulimit -Hn) - 1000));
    # Takes all connections that wait, not one per turn.
    multi_accept on;
}
http {
    # No log line and no file per request.
    access_log off;
    client_body_temp_path $directory/body;
    proxy_temp_path $directory/proxy;
    fastcgi_temp_path $directory/fastcgi;
    uwsgi_temp_path $directory/uwsgi;
    scgi_temp_path $directory/scgi;
    # Nothing is replayed here, so nothing is stored.
    nchan_store_messages off;
    server {
        # A listener per worker, as corecast has it, and room for a crowd that comes at once.
        listen 127.0.0.1:$1 reuseport backlog=4096;
        location = /sub {
            nchan_subscriber eventsource;
            nchan_channel_id $channel;
        }
        location = /pub {
            nchan_publisher http;
            nchan_channel_id $channel;
        }
    }
}
END
}

main "$@"
