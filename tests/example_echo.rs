//! The echo example as its user sees it: its flags, what it prints, its end.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use corelane::Address;
use nix::sys::signal::Signal;
use support::{Client, Example, TempDir};

fn echoes(mut stream: impl Read + Write) {
    stream.write_all(b"hello").unwrap();
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"hello");
}

#[test]
fn it_serves_every_address_and_ends_cleanly() {
    let folder = TempDir::new();
    let path = folder.join("echo.sock");
    let unix = format!("unix:{}", path.display());
    let (mut echo, address) =
        Example::serve("echo", &["--listen", "[::1]:0", "--listen", &unix, "--reactors", "2"]);
    let sixth = echo.hear("listening on ");
    assert!(sixth.starts_with("[::1]:"), "{sixth}");
    assert_eq!(echo.hear("listening on "), unix);
    echoes(TcpStream::connect(address).unwrap());
    echoes(TcpStream::connect(&sixth).unwrap());
    echoes(UnixStream::connect(&path).unwrap());
    echo.stop();
    assert!(!path.exists(), "the socket file stayed behind");
}

#[test]
fn one_reactor_needs_one_thread() {
    let (echo, address) = Example::serve("echo", &["--reactors", "1"]);
    echoes(TcpStream::connect(address).unwrap());
    let status = std::fs::read_to_string(format!("/proc/{}/status", echo.id())).unwrap();
    assert!(status.lines().any(|line| line == "Threads:\t1"), "{status}");
    echo.stop();
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (status, output) = Example::start("echo", &["--listen", &address]).wait();
    assert_eq!(status.code(), Some(1));
    assert_eq!(output.len(), 1, "{output:#?}");
    assert!(output[0].contains(&address), "{output:#?}");
}

/// More than a poll returns events for. What came while the process was stopped came in time.
#[test]
fn a_process_that_was_stopped_takes_nobody_for_idle_who_has_sent() {
    let arguments = ["--reactors", "1", "--idle", "4"];
    let (server, address) = Example::serve("echo", &arguments);
    let (clock, clock_address) = Example::serve("echo", &arguments);
    let mut clients: Vec<Client> = (0..1_500).map(|_| Client::connect(&Address::Tcp(address))).collect();
    clients.iter_mut().for_each(|client| client.echo(b"before"));
    server.signal(Signal::SIGSTOP);
    clients.iter_mut().for_each(|client| client.send(b"meanwhile"));
    // Another server tells when the deadline has passed.
    let mut quiet = Client::connect(&Address::Tcp(clock_address));
    quiet.echo(b"now");
    assert_eq!(quiet.receive_rest().0, b"");
    server.signal(Signal::SIGCONT);
    clients.iter_mut().for_each(|client| assert_eq!(client.receive(9), b"meanwhile"));
    drop(clients);
    server.stop();
    clock.stop();
}
