//! A worker's end of the channel: its stdin and stdout.

use std::io::{self, Write};
use std::thread;

use anyhow::{Context, Result};

use super::words::{Order, Word};

/// Has every order passed to `take`, and at the end of the channel `None`, on a thread of its own.
pub(crate) fn hear(mut take: impl FnMut(Option<Order>) + Send + 'static) -> Result<()> {
    let listen = move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            // Both ends are of one build; a line that makes no sense means that the coordinator is gone.
            let Ok(order) = serde_json::from_str(&line) else { break };
            take(Some(order));
        }
        take(None);
    };
    thread::Builder::new().name("channel".to_owned()).spawn(listen).context("cannot start a thread")?;
    Ok(())
}

/// Says a word to the coordinator.
///
/// If that is gone, the end of the channel tells so.
pub(crate) fn say(word: &Word) {
    if let Ok(mut line) = serde_json::to_vec(word) {
        line.push(b'\n');
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
    }
}
