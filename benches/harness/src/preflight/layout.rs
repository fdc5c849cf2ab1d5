//! How a run is spread over processes and source addresses, so that it fits under the host's limits.

use std::net::Ipv4Addr;

use serde::Serialize;

use super::host::Host;

/// Descriptors of a process beside its connections and its reactors: standard streams, signals, the channel.
const OTHER_DESCRIPTORS: u64 = 32;

/// Descriptors that each reactor takes.
const DESCRIPTORS_PER_REACTOR: u64 = 8;

/// The kernel spreads connections over listeners by a hash, so some process gets more than its share: the share's
/// root, some six times. With this headroom the fullest of a hundred overflows once in ten million runs.
const DEVIATIONS: f64 = 6.0;

/// The first of the addresses that clients connect from.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// What was asked for; what is not given is chosen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) connections: u64,
    pub(crate) server_processes: Option<u64>,
    pub(crate) client_processes: Option<u64>,
    /// In each process.
    pub(crate) server_reactors: u64,
    pub(crate) client_reactors: u64,
}

/// How a run is spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Layout {
    /// Connections that will be held, fewer than asked for if more do not fit.
    pub(crate) connections: u64,
    pub(crate) server_processes: u64,
    pub(crate) client_processes: u64,
    /// Addresses that each client process connects from; 0: the kernel's choice will do.
    pub(crate) sources_each: u64,
}

impl Layout {
    /// The fewest processes that hold the connections, the same number on both sides unless asked otherwise.
    pub(crate) fn new(asked: &Asked, host: &Host) -> Self {
        let room = |reactors: u64| {
            host.files.1.saturating_sub(OTHER_DESCRIPTORS + DESCRIPTORS_PER_REACTOR * reactors.max(1))
        };
        let (server_room, client_room) = (room(asked.server_reactors), room(asked.client_reactors));
        let server_processes =
            asked.server_processes.unwrap_or_else(|| processes(asked.connections, server_room));
        let client_processes = asked.client_processes.unwrap_or_else(|| {
            asked.connections.checked_div(client_room).map_or(1, |_| {
                asked.connections.div_ceil(client_room).max(server_processes).min(asked.connections.max(1))
            })
        });
        let connections = asked
            .connections
            .min(most(server_processes, server_room))
            .min(client_processes.saturating_mul(client_room));
        let per_client = connections.div_ceil(client_processes.max(1));
        // Finding a free port becomes slow when more than about half of them are taken.
        let per_source = host.port_count().div_ceil(2);
        let spread = client_processes > 1 || per_client > per_source;
        let sources_each = if spread { per_client.div_ceil(per_source).max(1) } else { 0 };
        Self { connections, server_processes, client_processes, sources_each }
    }

    /// How many of the connections the client process of this index opens.
    pub(crate) fn share(&self, client: u64) -> u64 {
        self.up_to(client, self.connections)
    }

    /// How many the client process of this index has opened when there are so many in all.
    pub(crate) fn up_to(&self, client: u64, total: u64) -> u64 {
        let (each, more) = (total / self.client_processes, total % self.client_processes);
        each + u64::from(client < more)
    }

    /// The addresses that the client process of this index connects from; none: the kernel's choice.
    pub(crate) fn sources(&self, client: u64) -> Vec<Ipv4Addr> {
        let first = u64::from(FIRST_SOURCE.to_bits()) + client * self.sources_each;
        (first..first + self.sources_each).map(|bits| Ipv4Addr::from_bits(bits as u32)).collect()
    }

    /// How many source addresses there are in all.
    pub(crate) fn source_count(&self) -> u64 {
        self.sources_each * self.client_processes
    }
}

/// The fewest processes with so much `room` each that hold the connections.
fn processes(connections: u64, room: u64) -> u64 {
    if connections <= room || room == 0 {
        return 1;
    }
    let least = connections.div_ceil(room);
    (least..=connections).find(|&count| most(count, room) >= connections).unwrap_or(least)
}

/// The most connections that so many processes with so much room each are given: the share `s` of each is kept so
/// small that `s + DEVIATIONS * sqrt(s)` fits.
fn most(processes: u64, room: u64) -> u64 {
    if processes == 1 {
        return room;
    }
    let root = (-DEVIATIONS + (DEVIATIONS * DEVIATIONS + 4.0 * room as f64).sqrt()) / 2.0;
    (root * root * processes as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::super::host::tests::host;
    use super::*;

    fn layout(connections: u64, files: u64) -> Layout {
        let asked = Asked { connections, server_reactors: 1, client_reactors: 1, ..Asked::default() };
        Layout::new(&asked, &host(files))
    }

    #[test]
    fn what_fits_one_process_takes_one() {
        let one = layout(10_000, 20_000);
        assert_eq!((one.server_processes, one.client_processes, one.sources_each), (1, 1, 0));
        assert_eq!((one.connections, one.share(0)), (10_000, 10_000));
        // More than half of the ports, though.
        assert_eq!(layout(19_000, 20_000).sources_each, 2);
    }

    #[test]
    fn a_million_takes_fifty_three_pairs_of_twenty_thousand_descriptors() {
        let million = layout(1_000_000, 20_000);
        assert_eq!((million.server_processes, million.client_processes), (53, 53));
        assert_eq!(million.connections, 1_000_000);
        assert_eq!((0..53).map(|client| million.share(client)).sum::<u64>(), 1_000_000);
        assert_eq!(million.sources(0), [Ipv4Addr::new(127, 0, 1, 1), Ipv4Addr::new(127, 0, 1, 2)]);
        assert_eq!(million.source_count(), 106);
        assert_eq!(layout(100_000, 20_000).server_processes, 6);
    }

    #[test]
    fn no_address_is_used_twice() {
        let layout = layout(1_000_000, 2_000);
        let all: Vec<_> = (0..layout.client_processes).flat_map(|client| layout.sources(client)).collect();
        let unique: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len());
        assert!(all.iter().all(|address| address.is_loopback()));
    }

    #[test]
    fn what_was_asked_for_is_kept_and_bounds_the_connections() {
        let asked = Asked {
            connections: 5_000,
            server_processes: Some(1),
            client_processes: Some(1),
            server_reactors: 2,
            client_reactors: 1,
        };
        let layout = Layout::new(&asked, &host(150));
        assert_eq!((layout.connections, layout.server_processes, layout.client_processes), (102, 1, 1));
        assert_eq!(Layout::new(&asked, &host(30)).connections, 0);
    }

    #[test]
    fn shares_grow_evenly() {
        let layout = Layout { connections: 10, server_processes: 1, client_processes: 3, sources_each: 1 };
        assert_eq!([0, 1, 2].map(|client| layout.share(client)), [4, 3, 3]);
        assert_eq!([0, 1, 2].map(|client| layout.up_to(client, 5)), [2, 2, 1]);
    }

    #[test]
    fn the_headroom_grows_with_the_root_of_the_share() {
        assert_eq!(most(1, 1_000), 1_000);
        let share = most(10, 1_000) / 10;
        assert!(share as f64 + 6.0 * (share as f64).sqrt() <= 1_000.0, "{share}");
        assert!((share + 2) as f64 + 6.0 * ((share + 2) as f64).sqrt() > 1_000.0, "{share}");
    }
}
