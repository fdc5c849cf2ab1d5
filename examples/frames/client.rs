//! The client: it keeps a number of requests in flight and checks every byte of the replies.

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use corelane::Address;
use corelane::codec::{Client, LengthPrefixed, Receiver, Sender};

use super::{DONE, ID, REFUSED, reply_codec};

type Problem = Box<dyn std::error::Error + Send + Sync>;

#[derive(Args)]
pub(super) struct ClientOptions {
    /// Where the server listens: IPV4:PORT, [IPV6]:PORT, unix:/path or unix:@name.
    address: Address,
    /// How many requests to send.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    requests: u64,
    /// How many of them may wait for their replies at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    depth: u32,
    /// Bytes in the body of each.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=256 << 20))]
    size: u32,
    /// Give up on a server that does nothing for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
}

pub(super) fn run(options: &ClientOptions) -> ExitCode {
    match exchange(options) {
        Ok(time) => {
            let ClientOptions { requests, depth, size, .. } = options;
            let rate = *requests as f64 / time.as_secs_f64();
            println!("{requests} requests of {size} bytes, {depth} in flight, all replies right");
            println!("{:.3} s, {rate:.0} messages/s", time.as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Sends all requests and receives all replies, at a time; how long it took.
fn exchange(options: &ClientOptions) -> Result<Duration, Problem> {
    let &ClientOptions { ref address, requests, depth, size, patience } = options;
    let codec = reply_codec(size as usize + ID);
    let client = Client::connect(address, codec, Duration::from_secs(patience))?;
    let (sender, mut receiver) = client.input_cap(2 * (size as usize + 1024)).split();
    let (permit, permits) = mpsc::channel();
    (0..depth).for_each(|_| _ = permit.send(()));
    let start = Instant::now();
    let sending = thread::spawn(move || send(sender, requests, size as usize, &permits));
    let mut expected = Vec::new();
    let received = (0..requests).try_for_each(|id| {
        check(&mut receiver, id, size as usize, &mut expected)?;
        // The sender is gone when it has sent everything.
        let _ = permit.send(());
        Ok(())
    });
    drop(permit);
    let sent = sending.join().map_err(|_| "the sending thread panicked")?;
    // A server that closes tells why in what it sends, which is worth more than a broken pipe.
    received.and(sent)?;
    expect_end(&mut receiver)?;
    Ok(start.elapsed())
}

/// Sends requests, as many together as there are permits for.
fn send(
    mut sender: Sender<LengthPrefixed>,
    requests: u64,
    size: usize,
    permits: &mpsc::Receiver<()>,
) -> Result<(), Problem> {
    let most_together = 256 * 1024 / (size + 1);
    let mut id = 0;
    while id < requests && permits.recv().is_ok() {
        let more = permits.try_iter().take(most_together).count() as u64;
        let end = requests.min(id + 1 + more);
        sender.send_all((id..end).map(|id| {
            let mut request = id.to_be_bytes().to_vec();
            fill(&mut request, id, size);
            request
        }))?;
        id = end;
    }
    sender.finish()?;
    Ok(())
}

/// Receives one reply, which must be the right one to the last byte.
fn check(
    receiver: &mut Receiver<LengthPrefixed>,
    id: u64,
    size: usize,
    expected: &mut Vec<u8>,
) -> Result<(), Problem> {
    let Some(reply) = receiver.receive()? else {
        return Err(format!("the server closed the connection and owes the reply to request {id}").into());
    };
    if let Some((&REFUSED, text)) = reply.split_first() {
        return Err(format!("the server refused: {}", String::from_utf8_lossy(text)).into());
    }
    expected.clear();
    expected.push(DONE);
    expected.extend(id.to_be_bytes());
    fill(expected, id, size);
    expected[1 + ID..].reverse();
    if reply == expected {
        return Ok(());
    }
    let at = reply.iter().zip(&*expected).position(|(is, should)| is != should);
    Err(match at {
        Some(at) => format!("the reply to request {id} is wrong at byte {at}"),
        None => format!("the reply to request {id} has {} bytes, not {}", reply.len(), expected.len()),
    }
    .into())
}

fn expect_end(receiver: &mut Receiver<LengthPrefixed>) -> Result<(), Problem> {
    match receiver.receive()? {
        None => Ok(()),
        Some(reply) => Err(format!("{} bytes that nobody asked for", reply.len()).into()),
    }
}

/// Appends a body of its own for each id, so that no reply passes for another.
fn fill(bytes: &mut Vec<u8>, id: u64, size: usize) {
    let end = bytes.len() + size;
    let mut word = id;
    while bytes.len() < end {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let piece = (word ^ (word >> 32)).to_le_bytes();
        bytes.extend_from_slice(&piece[..piece.len().min(end - bytes.len())]);
    }
}
