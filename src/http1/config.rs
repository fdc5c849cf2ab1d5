use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::counters::{Counters, CountersSnapshot};
use super::{Http, Service};
use crate::{Deadlines, MinimumRate, Server};

/// The most headers that [`Limits::headers`] can allow.
pub const MOST_HEADERS: usize = 128;

/// What one connection may ask for. Beyond, it is answered with the status named here and closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request line with its headers, and of trailers. 431. 64 bytes to 1 MiB, and less than the
    /// server's [`input_cap`](Server::input_cap); 16 KiB unless set.
    pub head: usize,
    /// Headers of a request, and trailers. 431. 1 to [`MOST_HEADERS`]; 100 unless set.
    pub headers: usize,
    /// Bytes of a target. 414. At least 1; 8 KiB unless set. One that is not less than `head` is never reached: what
    /// is too long is too long a head before (431).
    pub target: usize,
    /// Bytes of a body. 413. 1 MiB unless set; `u64::MAX` for no limit. A service may allow fewer, request by request:
    /// [`Exchange::limit_body`](super::Exchange::limit_body).
    pub body: u64,
    /// Bytes of the extensions of all chunks of a body together. 400. 1 KiB unless set.
    pub chunk_extension: usize,
    /// Requests of a connection that wait for their replies at a time; a further one stays unread until one of
    /// them is answered. 1 to 1,024; 16 unless set.
    pub pipeline: usize,
    /// Bytes of replies that wait for those before them; above it nothing more is read. 256 KiB unless set.
    pub held: usize,
    /// Requests of a connection; the reply to the last says `Connection: close`. At least 1; `u32::MAX` unless
    /// set.
    pub requests: u32,
    /// Bytes of a body that are read and dropped where the reply was ready before the body; where more is left the
    /// connection closes. 64 KiB unless set.
    pub discard: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 16 * 1024,
            headers: 100,
            target: 8 * 1024,
            body: 1024 * 1024,
            chunk_extension: 1024,
            pipeline: 16,
            held: 256 * 1024,
            requests: u32::MAX,
            discard: 64 * 1024,
        }
    }
}

/// How long a peer may keep the server waiting. The time that a service takes counts nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a head to its last. 408. 30 s unless set.
    pub head: Duration,
    /// How slowly a body may come: on average since its head, or since it was last as fast as it has to be. 408. 240 bytes
    /// a second, looked at after 30 s, unless set; so one that stops is cut off after 30 s, however much has come.
    pub body: MinimumRate,
    /// Between requests, and before the first. Closes without a word. 30 s unless set.
    pub keep_alive: Duration,
    /// With output waiting and the peer taking none of it. Resets the connection. 30 s unless set.
    pub write_stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        const HALF_A_MINUTE: Duration = Duration::from_secs(30);
        Self {
            head: HALF_A_MINUTE,
            body: MinimumRate { bytes_per_second: 240, grace: HALF_A_MINUTE },
            keep_alive: HALF_A_MINUTE,
            write_stall: HALF_A_MINUTE,
        }
    }
}

/// The settings of HTTP/1.1. All have defaults that suit a service on the open network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What one connection may ask for.
    pub limits: Limits,
    /// How long a peer may keep the server waiting.
    pub timeouts: Timeouts,
    /// Whether replies have a `Date`, as RFC 9110 wants it of a server with a clock. Yes unless set.
    pub date: bool,
    /// Of how many requests one is told to [`Service::on_access`](super::Service::on_access); 0, the default, for
    /// none.
    pub log_every: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { limits: Limits::default(), timeouts: Timeouts::default(), date: true, log_every: 0 }
    }
}

/// A setting that is out of range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    field: &'static str,
    value: u64,
    accepted: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, accepted } = self;
        write!(f, "http1: {field}: {value} is not within {accepted}")
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first that is out of range.
    pub fn build(self) -> Result<Protocol, ConfigError> {
        let check = |field, value: u64, within: bool, accepted| match within {
            true => Ok(()),
            false => Err(ConfigError { field, value, accepted }),
        };
        let Self { limits, timeouts, .. } = &self;
        let (head, headers, target) = (limits.head, limits.headers, limits.target);
        check("limits.head", head as u64, (64..=1 << 20).contains(&head), "64 to 1,048,576 bytes")?;
        check("limits.headers", headers as u64, (1..=MOST_HEADERS).contains(&headers), "1 to 128")?;
        check("limits.target", target as u64, target > 0, "1 byte and more")?;
        let pipeline = limits.pipeline;
        check("limits.pipeline", pipeline as u64, (1..=1024).contains(&pipeline), "1 to 1,024")?;
        check("limits.requests", limits.requests.into(), limits.requests > 0, "1 to 4,294,967,295")?;
        for (field, time) in [
            ("timeouts.head", timeouts.head),
            ("timeouts.body.grace", timeouts.body.grace),
            ("timeouts.keep_alive", timeouts.keep_alive),
            ("timeouts.write_stall", timeouts.write_stall),
        ] {
            let is_sane = time >= Duration::from_millis(10) && time <= Duration::from_secs(24 * 86_400);
            check(field, time.as_millis() as u64, is_sane, "10 ms to 24 days")?;
        }
        let rate = timeouts.body.bytes_per_second;
        check("timeouts.body.bytes_per_second", rate.into(), rate > 0, "1 to 2^31")?;
        Ok(Protocol { config: Arc::new(self), counters: Arc::default() })
    }
}

/// Checked settings of HTTP/1.1, for all reactors of a server; makes their handlers and has their counters.
#[derive(Debug, Clone)]
pub struct Protocol {
    config: Arc<Config>,
    counters: Arc<Mutex<Vec<Arc<Counters>>>>,
}

impl Protocol {
    /// A server with the deadlines of these settings; give it addresses and start it.
    pub fn server(&self) -> Server {
        let timeouts = &self.config.timeouts;
        Server::new().deadlines(Deadlines {
            idle: Some(timeouts.keep_alive),
            write_stall: Some(timeouts.write_stall),
            ..Deadlines::default()
        })
    }

    /// The handler of one reactor: call it in the factory that is given to [`Server::start`].
    pub fn handler<S: Service>(&self, service: S) -> Http<S> {
        let counters = Arc::new(Counters::default());
        self.lock().push(Arc::clone(&counters));
        Http::new(Arc::clone(&self.config), counters, service)
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What each reactor's handler has counted, in the order in which they were made.
    pub fn counters(&self) -> Vec<CountersSnapshot> {
        self.lock().iter().map(|counters| counters.snapshot()).collect()
    }

    /// What all of them have counted together.
    pub fn total(&self) -> CountersSnapshot {
        let mut total = CountersSnapshot::default();
        self.lock().iter().for_each(|counters| total.add(&counters.snapshot()));
        total
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Counters>>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_at_fault(limits: Limits) -> Option<&'static str> {
        Config { limits, ..Config::default() }.build().err().map(|error| error.field)
    }

    #[test]
    fn one_limit_can_be_set_without_the_others() {
        let defaults = Limits::default;
        for limits in [
            Limits { head: 64, ..defaults() },
            Limits { head: 1 << 20, ..defaults() },
            Limits { headers: 1, ..defaults() },
            Limits { headers: MOST_HEADERS, ..defaults() },
            Limits { target: 1, ..defaults() },
            Limits { target: usize::MAX, ..defaults() },
            Limits { body: 0, ..defaults() },
            Limits { body: u64::MAX, ..defaults() },
            Limits { chunk_extension: 0, ..defaults() },
            Limits { pipeline: 1, ..defaults() },
            Limits { pipeline: 1024, ..defaults() },
            Limits { held: 0, ..defaults() },
            Limits { requests: 1, ..defaults() },
            Limits { discard: 0, ..defaults() },
        ] {
            assert_eq!(field_at_fault(limits.clone()), None, "{limits:?}");
        }
        for (limits, field) in [
            (Limits { head: 63, ..defaults() }, "limits.head"),
            (Limits { head: (1 << 20) + 1, ..defaults() }, "limits.head"),
            (Limits { headers: 0, ..defaults() }, "limits.headers"),
            (Limits { target: 0, ..defaults() }, "limits.target"),
            (Limits { pipeline: 0, ..defaults() }, "limits.pipeline"),
            (Limits { pipeline: 1025, ..defaults() }, "limits.pipeline"),
            (Limits { requests: 0, ..defaults() }, "limits.requests"),
        ] {
            assert_eq!(field_at_fault(limits), Some(field));
        }
    }
}
