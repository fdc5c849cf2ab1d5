//! The least that a server and a client can do: blocking sends and receives on one connection.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cpu::CpuList;
use crate::latency::Latencies;
use crate::plan::{Load, Plan};
use crate::result::{Counts, Phase, Target};

/// A thread that echoes on one connection after the other, for as long as the process lasts.
#[derive(Debug)]
pub(super) struct BareServer(SocketAddr);

impl BareServer {
    pub(super) fn start(cpus: CpuList) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let address = listener.local_addr().context("no address")?;
        cpus.to_set()?;
        let serve = move || {
            // If it cannot have them the client is measured beside it, which shows.
            let _ = cpus.pin_this_thread();
            for stream in listener.incoming().map_while(Result::ok) {
                // An end that is a reset is as good as any.
                let _ = echo(stream);
            }
        };
        thread::Builder::new()
            .name("bare-server".to_owned())
            .spawn(serve)
            .context("cannot start a thread")?;
        Ok(Self(address))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.0
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

/// Sends what is due at the plan's rate, a message at a time, and waits for each.
pub(super) fn measure(plan: &Plan, server: SocketAddr, label: &str, spins: bool) -> Result<Target> {
    let Load::Open { profile, .. } = &plan.load else { bail!("the load has no rate") };
    let rate = profile.count() / profile.seconds();
    let mut stream = TcpStream::connect(server).with_context(|| format!("cannot connect to {server}"))?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    stream.set_read_timeout(Some(plan.deadline)).context("cannot set SO_RCVTIMEO")?;
    nix::sys::prctl::set_timerslack(1).context("cannot set the timer slack")?;
    let message: Vec<u8> = (0..plan.largest()).map(|index| index as u8).collect();
    let mut reply = vec![0; message.len()];
    let (mut raw, mut corrected) = (Latencies::new(), Latencies::new());
    let in_all = plan.warmup + plan.duration;
    let start = Instant::now();
    let mut late = 0;
    for index in 0..(in_all.as_secs_f64() * rate) as u32 {
        let due = start + Duration::from_secs_f64(f64::from(index) / rate);
        wait_until(due, spins);
        let sent = Instant::now();
        stream.write_all(&message).context("cannot send")?;
        stream.read_exact(&mut reply).context("no reply")?;
        let received = Instant::now();
        if reply != message {
            bail!("wrong bytes came back");
        }
        if due >= start + plan.warmup {
            late += u64::from(sent - due > plan.late_after);
            raw.record((received - sent).as_nanos() as u64);
            corrected.record((received - due).as_nanos() as u64);
        }
    }
    let count = raw.count();
    let mut target = Target {
        label: label.to_owned(),
        seconds: plan.duration.as_secs_f64(),
        messages_per_second: count as f64 / plan.duration.as_secs_f64(),
        counts: Counts {
            connections_asked: 1,
            connections_opened: 1,
            sent: count,
            received: count,
            received_bytes: count * message.len() as u64,
            verified_bytes: count * message.len() as u64,
            late,
            ..Counts::default()
        },
        ..Target::default()
    };
    target.phases.reply = Phase { corrected: Some(corrected), raw: Some(raw), ..Phase::default() };
    Ok(target)
}

fn wait_until(due: Instant, spins: bool) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if spins {
            std::hint::spin_loop();
        } else {
            thread::sleep(left);
        }
    }
}
