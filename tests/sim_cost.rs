//! System calls are the cost: a driver that counts them proves what a message costs.
#![cfg(feature = "sim")]

use corelane::sim::{Call, Faults, Remote, Simulation};
use corelane::*;

struct Echo;

impl Handler for Echo {
    type Session = ();
    type Message = Shared;

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        Open::Accept(())
    }

    /// Answers each message of 64 bytes on its own.
    fn on_data(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
        while input.len() >= 64 {
            conn.write(input.take(64));
        }
        Flow::Continue
    }

    fn on_message(&mut self, message: Shared, sessions: &mut Sessions<()>, core: &mut Core<'_>) {
        for (id, ()) in sessions.iter() {
            core.write_shared(id, &message);
        }
    }
}

fn simulation() -> Simulation<Echo> {
    Simulation::new(1, Server::new().listen("127.0.0.1:7000"), Faults::none(), |_| Echo).unwrap()
}

fn connected(sim: &mut Simulation<Echo>, count: usize) -> Vec<Remote> {
    let remotes: Vec<Remote> = (0..count).map(|_| sim.connect()).collect();
    sim.run_until_quiet().unwrap();
    remotes
}

fn exchange(sim: &mut Simulation<Echo>, remote: &Remote, messages: usize) {
    let expected = remote.received_count() + 64 * messages;
    remote.send(&vec![7; 64 * messages]);
    sim.run_until(|_| remote.received_count() >= expected).unwrap();
}

#[test]
fn a_message_costs_one_receive_one_send_and_one_poll() {
    let mut sim = simulation();
    let remotes = connected(&mut sim, 1);
    let (before, reads_before) = (sim.calls(), sim.counters().empty_reads);
    for _ in 0..1000 {
        exchange(&mut sim, &remotes[0], 1);
    }
    let calls = sim.calls().since(&before);
    assert_eq!(calls.of(Call::Receive), 1000);
    assert_eq!(calls.of(Call::Send), 1000);
    // One brings the message; the other is the one in which the reply reaches the remote.
    assert!(calls.of(Call::Poll) <= 2000, "{calls}");
    assert_eq!(sim.counters().empty_reads, reads_before);
    for call in [Call::Install, Call::Accept, Call::SetOptions, Call::Close] {
        assert_eq!(calls.of(call), 0, "{calls}");
    }
}

#[test]
fn sixteen_messages_in_one_segment_cost_one_receive_and_one_send() {
    let mut sim = simulation();
    let remotes = connected(&mut sim, 1);
    let before = sim.calls();
    exchange(&mut sim, &remotes[0], 16);
    let calls = sim.calls().since(&before);
    assert_eq!((calls.of(Call::Receive), calls.of(Call::Send)), (1, 1), "{calls}");
}

#[test]
fn connections_that_are_ready_together_share_a_poll() {
    let mut sim = simulation();
    let remotes = connected(&mut sim, 100);
    let before = sim.calls();
    remotes.iter().for_each(|remote| remote.send(&[7; 64]));
    sim.run_until(|_| remotes.iter().all(|remote| remote.received_count() == 64)).unwrap();
    let calls = sim.calls().since(&before);
    assert_eq!((calls.of(Call::Receive), calls.of(Call::Send)), (100, 100), "{calls}");
    assert!(calls.of(Call::Poll) <= 3, "{calls}");
}

#[test]
fn a_connection_costs_one_accept_one_install_and_one_close() {
    let mut sim = simulation();
    sim.run_until_quiet().unwrap();
    let before = sim.calls();
    let remotes = connected(&mut sim, 50);
    let calls = sim.calls().since(&before);
    assert_eq!(calls.of(Call::Install), 50, "{calls}");
    // The last accept of each batch finds nobody, as it must: an edge comes once.
    assert!(calls.of(Call::Accept) <= 50 + calls.of(Call::Poll), "{calls}");
    assert_eq!((calls.of(Call::Receive), calls.of(Call::Send)), (0, 0), "{calls}");
    remotes.iter().for_each(Remote::finish);
    sim.run_until(|_| remotes.iter().all(Remote::saw_end)).unwrap();
    let calls = sim.calls().since(&before);
    assert_eq!(calls.of(Call::Close), 50, "{calls}");
    assert_eq!(calls.of(Call::Receive), 50, "the end of each stream is one read: {calls}");
}

#[test]
fn a_broadcast_costs_at_most_two_sends_a_turn_for_each_connection() {
    let mut sim = simulation();
    let remotes = connected(&mut sim, 30);
    let before = sim.calls();
    for _ in 0..4 {
        sim.handle().send(0, Shared::from(vec![1; 500])).unwrap();
    }
    sim.run_until(|_| remotes.iter().all(|remote| remote.received_count() == 2000)).unwrap();
    let calls = sim.calls().since(&before);
    assert_eq!(calls.of(Call::Send), 60, "the first message leaves at once, three leave together: {calls}");
    assert_eq!(calls.of(Call::Receive), 0, "{calls}");
}

#[test]
fn idle_connections_cost_nothing() {
    let mut sim = simulation();
    let _remotes = connected(&mut sim, 100);
    sim.run_for(std::time::Duration::from_secs(10)).unwrap();
    let before = sim.calls();
    sim.run_for(std::time::Duration::from_secs(3600)).unwrap();
    let calls = sim.calls().since(&before);
    assert!(calls.of(Call::Poll) <= 1, "{calls}");
}

#[test]
fn a_file_costs_one_send_for_what_is_before_it_and_one_for_each_block() {
    let path = std::env::temp_dir().join(format!("corelane-cost-{}", std::process::id()));
    std::fs::write(&path, vec![7; 100_000]).unwrap();
    let file = FileSlice::whole(std::fs::File::open(&path).unwrap()).unwrap();
    std::fs::remove_file(path).unwrap();
    struct Files(FileSlice);
    impl Handler for Files {
        type Session = ();
        type Message = ();

        fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<()> {
            conn.write(b"head");
            conn.write_file(self.0.range(0, 60_000).unwrap());
            conn.write(b"and");
            conn.write_file(self.0.clone());
            conn.write(b"tail");
            Open::Accept(())
        }

        fn on_data(&mut self, _: &mut Conn<'_>, (): &mut (), _: &mut Input<'_>) -> Flow {
            Flow::Close
        }
    }
    let server = Server::new()
        .listen("127.0.0.1:7000")
        .socket_options(SocketOptions { send_buffer: Some(1 << 20), ..SocketOptions::default() });
    let mut sim = Simulation::new(1, server, Faults::none(), |_| Files(file)).unwrap();
    let remote = sim.connect();
    sim.run_until(|_| remote.received_count() == 4 + 60_000 + 3 + 100_000 + 4).unwrap();
    // Where the kernel does not send files, they go in blocks of 64 KiB.
    assert_eq!((sim.calls().of(Call::Send), sim.calls().of(Call::SendFile)), (3, 3), "{}", sim.calls());
}
