//! The tables beside Debian's nginx and haproxy, each in front of a server that takes anything: what they refuse, we
//! refuse, or `http1_conformance/differences.txt` says why not.
#![cfg(feature = "http1")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use corelane::http1::Config;
use support::cases::{Case, Mirror, table};
use support::http::serve;
use support::{Client, DEADLINE, TempDir, eventually, installed};

/// Comes behind every case: whoever is still there closes behind it.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n";

/// How long a server that neither answers nor closes is waited for: it wants more, which is no acceptance.
const PATIENCE: Duration = Duration::from_millis(300);

/// A proxy, ended with the test.
struct Proxy {
    process: Child,
    socket: PathBuf,
}

impl Proxy {
    /// `None` where the program is missing.
    #[track_caller]
    fn start(program: &str, arguments: &[&str], folder: &Path, settings: &str) -> Option<Self> {
        let file = folder.join(format!("{program}.conf"));
        let socket = folder.join(format!("{program}.sock"));
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let process = installed(program, command.spawn())?;
        let proxy = Self { process, socket };
        eventually(&format!("{program} to listen"), || UnixStream::connect(&proxy.socket).is_ok());
        Some(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn nginx(folder: &Path) -> Option<Proxy> {
    let path = folder.display();
    let settings = format!(
        "daemon off; master_process off; error_log /dev/null; pid {path}/nginx.pid;
         events {{}}
         http {{
             access_log off;
             client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;
             uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
             server {{
                 listen unix:{path}/nginx.sock;
                 location / {{ proxy_pass http://unix:{path}/backend.sock; proxy_http_version 1.1; }}
             }}
         }}"
    );
    Proxy::start("nginx", &["-p", folder.to_str().unwrap(), "-c"], folder, &settings)
}

fn haproxy(folder: &Path) -> Option<Proxy> {
    let path = folder.display();
    let settings = format!(
        "defaults
             mode http
             timeout connect 5s
             timeout client 5s
             timeout server 5s
         frontend front
             bind unix@{path}/haproxy.sock
             default_backend back
         backend back
             server one unix@{path}/backend.sock
"
    );
    Proxy::start("haproxy", &["-db", "-f"], folder, &settings)
}

/// Takes any request as the proxies pass it on, and answers 200.
fn start_backend(folder: &Path) {
    let listener = UnixListener::bind(folder.join("backend.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_all(stream));
        }
    });
}

fn answer_all(mut stream: UnixStream) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&buffer[..count]);
        if is_whole(&bytes) {
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    }
}

fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let body = &bytes[end + 4..];
    if head.contains("transfer-encoding: chunked") {
        let has_last = body.starts_with(b"0\r\n") || body.windows(5).any(|five| five == b"\r\n0\r\n");
        return has_last && body.ends_with(b"\r\n\r\n");
    }
    body.len() >= length.unwrap_or(0)
}

/// The statuses with which the requests in `bytes` are answered.
fn ask(client: &mut Client, bytes: &[u8], patience: Duration) -> Vec<u16> {
    // A server that refuses early may have closed before all was sent.
    let _ = client.write_all(bytes);
    client.set_read_patience(patience);
    let mut received = Vec::new();
    let _ = client.read_to_end(&mut received);
    let text = String::from_utf8_lossy(&received);
    let starts = text.match_indices("HTTP/1.1 ").chain(text.match_indices("HTTP/1.0 "));
    let statuses =
        starts.filter_map(|(at, mark)| text.get(at + mark.len()..at + mark.len() + 3)?.parse().ok());
    statuses.filter(|&status| status != 100).collect()
}

/// How many requests were taken for such.
fn taken(statuses: &[u16]) -> usize {
    statuses.iter().take_while(|status| (200..300).contains(*status)).count()
}

/// By table and name, why we take what they do not.
fn differences() -> BTreeMap<&'static str, &'static str> {
    let lines = include_str!("http1_conformance/differences.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once('|').expect("name | reason"))
        .map(|(a, b)| (a.trim(), b.trim()))
        .collect()
}

#[test]
fn whatever_they_refuse_we_refuse() {
    let folder = TempDir::new();
    start_backend(folder.path());
    let proxies = [nginx(folder.path()), haproxy(folder.path())];
    let served = serve(Config::default(), |_| Mirror::default());
    let known = differences();
    let chunked = r"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let tables = [
        ("framing", table(include_str!("http1_conformance/framing.txt"), "")),
        ("chunks", table(include_str!("http1_conformance/chunks.txt"), chunked)),
        ("heads", table(include_str!("http1_conformance/heads.txt"), "")),
        ("targets", table(include_str!("http1_conformance/targets.txt"), "")),
    ];
    let mut unexplained = Vec::new();
    let mut stricter = 0;
    for (table, cases) in &tables {
        for Case { name, bytes, .. } in cases {
            let stream = [bytes, NEXT].concat();
            let ours = taken(&ask(&mut served.client(), &stream, PATIENCE));
            for proxy in proxies.iter().flatten() {
                let connect = || Client::Unix(UnixStream::connect(&proxy.socket).unwrap());
                let mut theirs = ask(&mut connect(), &stream, PATIENCE);
                let place = format!("{table}: {name}");
                if ours > taken(&theirs) && !known.contains_key(place.as_str()) {
                    // Before anybody complains: it may only have been slow.
                    theirs = ask(&mut connect(), &stream, DEADLINE);
                }
                stricter += u32::from(ours < taken(&theirs));
                if ours > taken(&theirs) && !known.contains_key(place.as_str()) {
                    let program = proxy.socket.file_stem().unwrap().display();
                    unexplained.push(format!("{place}: we take {ours}, {program} says {theirs:?}"));
                }
            }
        }
    }
    println!("{stricter} times we are the stricter");
    assert!(unexplained.is_empty(), "\n{}", unexplained.join("\n"));
}
