//! nginx, with `GET /plaintext` answered by the configuration alone.
//!
//! With one thread there is no master process, so that what this process costs is what nginx costs.

use std::ffi::OsStr;

use corelane_peers::external::External;

/// Connections of a worker, as far as the limit of descriptors goes.
const CONNECTIONS: usize = 16 * 1024;

fn main() -> ! {
    let about = "nginx answering GET /plaintext; --threads counts its worker processes";
    let server = External::prepare(env!("CARGO_BIN_NAME"), about);
    let config = server.write("nginx.conf", &config(&server));
    let prefix = server.directory().to_owned();
    let flags = ["-e", "stderr", "-p"].map(OsStr::new);
    let arguments = [&flags[..], &[prefix.as_os_str(), OsStr::new("-c"), config.as_os_str()]].concat();
    server.run("nginx", "nginx-light", &arguments)
}

fn config(server: &External) -> String {
    let workers = server.threads();
    let (master, reuseport) = if workers == 1 { ("off", "") } else { ("on", " reuseport") };
    let addr = server.addr();
    // It would otherwise give the directory for temporary files to another user.
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "\
daemon off;
{user}
master_process {master};
worker_processes {workers};
error_log stderr crit;
pid nginx.pid;
events {{
    worker_connections {CONNECTIONS};
    multi_accept on;
}}
http {{
    access_log off;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    default_type text/plain;
    server {{
        listen {addr} backlog=4096{reuseport};
        location = /plaintext {{
            return 200 \"Hello, World!\";
        }}
    }}
}}
"
    )
}
