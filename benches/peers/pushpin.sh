#!/usr/bin/env bash
# pushpin, as Debian has it: a proxy that holds streams for an origin, fed by POST. Its origin here
# is nginx, which answers every request at once: hold this stream, as channel so and so.
source "$(dirname "$0")/lib.sh"

folder=$built/pushpin
export LD_LIBRARY_PATH=$folder/usr/lib/x86_64-linux-gnu

install_peer() {
    debian "$folder" pushpin nginx
}

serve_peer() {
    local public
    public=$(free_port)
    origin=$(free_port)
    post=$(free_port)
    write_origin >"$directory/nginx.conf"
    write_zurl >"$directory/zurl.conf"
    write_settings "$public" >"$directory/pushpin.conf"
    echo "* 127.0.0.1:$origin" >"$directory/routes"
    mkdir "$directory/run" "$directory/logs"
    launch "$folder/usr/sbin/nginx" -p "$directory" -e "$directory/log" -c "$directory/nginx.conf"
    launch "$folder/usr/bin/zurl" "--config=$directory/zurl.conf"
    PATH=$folder/usr/bin:$PATH launch "$folder/usr/bin/pushpin" "--config=$directory/pushpin.conf"
    wait_until_streams "http://127.0.0.1:$public/$channel" || fail
    say version "$("$folder/usr/bin/pushpin" --version)"
    say url "http://127.0.0.1:$public/$channel"
    # Not the origin, which works only while streams open: it is no part of pushpin.
    for pid in "${launched[@]:1}" $(children "${launched[2]}"); do
        say pid "$pid"
    done
    # As fast as it may, a third of the streams gets no answer within ten seconds.
    say option --open-rate
    say option 1000
    fed_by_post "http://127.0.0.1:$post/publish/"
    say option --publish-body
    say option "{\"items\": [{\"channel\": \"$channel\", \"formats\": {\"http-stream\":
        {\"content\": \"data: {message}\\n\\n\"}}}]}"
}

write_origin() {
    cat <<END
daemon off;
pid $directory/pid;
worker_rlimit_nofile $(ulimit -Hn);
events {
    worker_connections 10000;
}
http {
    access_log off;
    client_body_temp_path $directory/body;
    proxy_temp_path $directory/proxy;
    fastcgi_temp_path $directory/fastcgi;
    uwsgi_temp_path $directory/uwsgi;
    scgi_temp_path $directory/scgi;
    server {
        listen 127.0.0.1:$origin backlog=4096;
        default_type text/event-stream;
        location / {
            add_header Grip-Hold stream;
            add_header Grip-Channel $channel;
            return 200 "retry: 2000\n\n";
        }
    }
}
END
}

# Four processes: condure holds the streams, pushpin-proxy and zurl ask the origin, pushpin-handler
# knows who streams what. Each has one thread for its work; none of them takes a number of workers.
# write_settings PORT
write_settings() {
    cat <<END
[global]
include=$folder/usr/lib/pushpin/internal.conf
rundir=$directory/run

[runner]
services=condure,pushpin-proxy,pushpin-handler
http_port=127.0.0.1:$1
condure_bin=$folder/usr/bin/condure
logdir=$directory/logs
log_level=1
# Streams that the front process takes: all that its descriptors allow.
client_maxconn=$(($(ulimit -Hn) - 1000))

[proxy]
routesfile=$directory/routes
# Where this zurl is, and not the one of the machine.
zurl_out_specs=ipc://$directory/run/zurl-in
zurl_out_stream_specs=ipc://$directory/run/zurl-in-stream
zurl_in_specs=ipc://$directory/run/zurl-out

[handler]
# Not the ports that everybody knows: another pushpin may have them.
push_in_http_addr=127.0.0.1
push_in_http_port=$post
push_in_spec=ipc://$directory/run/in
push_in_sub_specs=ipc://$directory/run/in-sub
command_spec=ipc://$directory/run/command
# Deliveries per second, and those that may wait: by default 2,500 and 25,000.
message_rate=10000000
message_hwm=10000000
END
}

write_zurl() {
    cat <<END
[General]
in_spec=ipc://$directory/run/zurl-in
in_stream_spec=ipc://$directory/run/zurl-in-stream
out_spec=ipc://$directory/run/zurl-out
in_req_spec=ipc://$directory/run/zurl-req
# All streams may be opened at once.
max_open_requests=20000
END
}

main "$@"
