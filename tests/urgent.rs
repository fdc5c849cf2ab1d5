//! Urgent data (RFC 9293, 3.8.5), which telnet and FTP send: a read ends in front of it, with more behind it.
#![cfg(target_os = "linux")]

mod support;

use socket2::SockRef;
use support::{Client, Script, TestServer};

/// The urgent byte itself is not of the stream (SO_OOBINLINE is off).
#[test]
fn what_is_behind_urgent_data_comes_without_a_further_byte() {
    let server = TestServer::start(Script::echo());
    let mut clients: Vec<Client> = (0..100).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(b"abc");
        assert_eq!(SockRef::from(&*client).send_out_of_band(b"!").unwrap(), 1);
        client.send(b"def");
    }
    for client in &mut clients {
        assert_eq!(client.receive(6), b"abcdef");
        client.echo(b"and on");
    }
}
