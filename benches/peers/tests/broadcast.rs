//! The peer that broadcasts brings everybody every line, in order, and keeps for those that are slow.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    process: Child,
    subscribers: SocketAddr,
    publishers: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer-broadcast"));
        command.args(["--addr", "127.0.0.1:0", "--publish-addr", "127.0.0.1:0"]).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut address =
            |words| lines.next().unwrap().unwrap().strip_prefix(words).unwrap().parse().unwrap();
        let (subscribers, publishers) = (address("listening on "), address("publish on "));
        Self { process, subscribers, publishers }
    }

    fn connect(&self, address: SocketAddr) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
    }

    /// A publisher, once everybody who has subscribed so far gets what it sends.
    fn publisher(&self, subscribers: &mut [BufReader<TcpStream>]) -> TcpStream {
        let mut publisher = self.connect(self.publishers).into_inner();
        publisher.write_all(b"ready\n").unwrap();
        subscribers.iter_mut().for_each(|subscriber| assert_eq!(line(subscriber), "ready"));
        publisher
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn line(subscriber: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    subscriber.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn everybody_gets_every_line() {
    let server = Server::start();
    let mut subscribers: Vec<_> = (0..20).map(|_| server.connect(server.subscribers)).collect();
    let mut publisher = server.publisher(&mut subscribers);
    let text: String = (0..5000).map(|number| format!("S{} {number}\n", number % 7)).collect();
    // Cut in the middle of lines; and the last has no end, so it is none.
    text.as_bytes().chunks(777).for_each(|part| publisher.write_all(part).unwrap());
    publisher.write_all(b"half").unwrap();
    drop(publisher);
    for subscriber in &mut subscribers {
        let mut received = vec![0; text.len()];
        subscriber.read_exact(&mut received).unwrap();
        assert!(received == text.as_bytes());
    }
    // Those who have left are not missed.
    subscribers.truncate(7);
    server.publisher(&mut subscribers);
}

#[test]
fn what_a_subscriber_does_not_take_is_kept_and_too_much_closes_it() {
    let server = Server::start();
    let mut subscribers: Vec<_> = (0..2).map(|_| server.connect(server.subscribers)).collect();
    let mut publisher = server.publisher(&mut subscribers);
    let text = "x".repeat(9999) + "\n";
    let mut slow = subscribers.pop().unwrap();
    let mut publish = |count: usize| {
        for _ in 0..count {
            publisher.write_all(text.as_bytes()).unwrap();
            assert_eq!(line(&mut subscribers[0]).len(), 9999);
        }
    };
    publish(300);
    for _ in 0..300 {
        assert_eq!(line(&mut slow).len(), 9999);
    }
    publish(5000);
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(rest.len() < 5000 * 10_000, "nothing was dropped");
}
