//! Framing on the simulator: reads and writes cut anywhere, pauses in the middle of a batch, connections of
//! both directions, resets at any moment.
#![cfg(all(feature = "sim", feature = "codec"))]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use corelane::codec::{Codec, Decoder, Delimited, Described, Fixed, FrameError, LengthPrefixed, Lines};
use corelane::sim::{Faults, Remote, Simulation};
use corelane::*;

/// How connections ended.
type Ends = Rc<RefCell<Vec<(Option<FrameError>, CloseReason)>>>;

/// Sends every frame back; now and then it pauses in the middle of a batch and goes on later.
struct Echo {
    codec: Rc<dyn Codec>,
    ends: Ends,
    frames: u64,
    dials: usize,
}

struct Session {
    frames: Decoder<Rc<dyn Codec>>,
    error: Option<FrameError>,
}

impl Handler for Echo {
    type Session = Session;
    type Message = ();

    fn on_start(&mut self, core: &mut Core<'_>) {
        for n in 0..self.dials {
            core.connect(&Dial::to(Address::Tcp(([192, 0, 2, 1], 7 + n as u16).into())));
        }
    }

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<Session> {
        Open::Accept(Session { frames: Decoder::new(Rc::clone(&self.codec)), error: None })
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        loop {
            match session.frames.next(input) {
                Ok(Some(frame)) => {
                    assert!(self.codec.write(conn, frame).unwrap().is_taken());
                    self.frames += 1;
                    if self.frames.is_multiple_of(5) {
                        conn.pause();
                        conn.core().set_timer(Duration::from_micros(700), 0);
                        return Flow::Continue;
                    }
                }
                Ok(None) => return Flow::Continue,
                Err(error) => {
                    session.error = Some(error);
                    conn.write(error.to_string().as_bytes());
                    return Flow::Close;
                }
            }
        }
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        loop {
            match session.frames.last(input) {
                Ok(Some(frame)) => _ = self.codec.write(conn, frame).unwrap(),
                Ok(None) => return Flow::Close,
                Err(error) => {
                    session.error = Some(error);
                    return Flow::Close;
                }
            }
        }
    }

    fn on_timer(&mut self, _: TimerId, _: u64, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        for (id, _) in &*sessions {
            core.resume(id);
        }
    }

    fn on_close(&mut self, _: ConnId, session: Session, reason: CloseReason, _: &mut Core<'_>) {
        self.ends.borrow_mut().push((session.error, reason));
    }
}

fn start(seed: u64, faults: Faults, codec: Rc<dyn Codec>, dials: usize) -> (Simulation<Echo>, Ends) {
    let ends = Ends::default();
    let handler = Echo { codec, ends: Rc::clone(&ends), frames: 0, dials };
    let server = Server::new().listen("127.0.0.1:7000");
    (Simulation::new(seed, server, faults, |_| handler).unwrap(), ends)
}

/// A codec, and frames that it can send.
type Case = (Rc<dyn Codec>, Vec<Vec<u8>>);

fn codecs() -> Vec<Case> {
    let frames = |sizes: &[usize]| -> Vec<Vec<u8>> {
        sizes.iter().enumerate().map(|(n, &size)| vec![b'a' + n as u8; size]).collect()
    };
    let any = frames(&[0, 1, 7, 300, 0, 9_000, 2, 40, 1]);
    let described = Described::new(2, |header| Ok(usize::from(header[1])));
    let own_length = |size: usize| [&[7, size as u8], &vec![b'x'; size - 2][..]].concat();
    vec![
        (Rc::new(LengthPrefixed::u8()), frames(&[0, 1, 255, 3, 0, 100])),
        (Rc::new(LengthPrefixed::u16_le()), any.clone()),
        (Rc::new(LengthPrefixed::u32_be().including_header()), any.clone()),
        (Rc::new(LengthPrefixed::varint()), any.clone()),
        (Rc::new(Lines::crlf()), any.clone()),
        (Rc::new(Delimited::new(b"\r\n\r\n")), any),
        (Rc::new(Fixed::new(6)), frames(&[6; 20])),
        (Rc::new(described), [2, 3, 255, 2, 90].map(own_length).into()),
    ]
}

fn stream(codec: &dyn Codec, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| codec.append(&mut bytes, frame).unwrap());
    bytes
}

#[test]
fn frames_come_back_on_connections_of_both_directions() {
    for seed in 0..40 {
        for (codec, frames) in codecs() {
            let bytes = stream(&*codec, &frames);
            let (mut sim, ends) = start(seed, Faults::lossless(), codec, 2);
            let mut remotes: Vec<Remote> = (0..2).map(|_| sim.connect()).collect();
            remotes.extend(sim.dialed());
            assert_eq!(remotes.len(), 4);
            let cut = 1 + seed as usize * 7 % bytes.len();
            for remote in &remotes {
                remote.send(&bytes[..cut]);
                remote.send(&bytes[cut..]);
                remote.finish();
            }
            sim.run_until(|_| remotes.iter().all(Remote::is_over)).unwrap();
            for remote in &remotes {
                assert!(remote.received() == bytes && remote.saw_end(), "seed {seed}: {frames:?}");
            }
            sim.shut_down();
            sim.run_to_the_end().unwrap();
            assert_eq!(*ends.borrow(), [(None, CloseReason::PeerClosed); 4], "seed {seed}");
        }
    }
}

#[test]
fn a_frame_that_is_too_large_ends_its_connection_cleanly() {
    for seed in 0..100 {
        let codec = LengthPrefixed::u16_be().maximum(10);
        let (mut sim, ends) = start(seed, Faults::lossless(), Rc::new(codec), 1);
        let remotes = [sim.connect(), sim.dialed().remove(0)];
        for remote in &remotes {
            remote.send(b"\0\x02ok\x00\x0b");
            remote.send(&[0; 3_000]);
        }
        let error = FrameError::TooLarge { length: 11, maximum: 10 };
        sim.run_until(|_| remotes.iter().all(Remote::is_over)).unwrap();
        for remote in &remotes {
            assert!(remote.saw_end() && !remote.saw_reset(), "seed {seed}");
            assert_eq!(remote.received(), format!("\0\x02ok{error}").as_bytes(), "seed {seed}");
            remote.finish();
        }
        sim.shut_down();
        sim.run_to_the_end().unwrap();
        assert_eq!(*ends.borrow(), [(Some(error), CloseReason::Local); 2], "seed {seed}");
    }
}

#[test]
fn a_stream_that_ends_within_a_frame_is_told_of() {
    for seed in 0..100 {
        let (mut sim, ends) = start(seed, Faults::lossless(), Rc::new(LengthPrefixed::u32_le()), 0);
        let remote = sim.connect();
        remote.send(b"\x02\0\0\0ok\x09\0\0\0half");
        remote.finish();
        sim.run_until(|_| remote.is_over()).unwrap();
        assert_eq!(remote.received(), b"\x02\0\0\0ok");
        sim.shut_down();
        sim.run_to_the_end().unwrap();
        let error = FrameError::Truncated { bytes: 8 };
        assert_eq!(*ends.borrow(), [(Some(error), CloseReason::PeerClosed)], "seed {seed}");
    }
}

/// With resets at any moment, what came back is still a beginning of what was sent, frame by frame.
#[test]
fn resets_lose_ends_and_nothing_else() {
    let mut lost = 0;
    for seed in 0..100 {
        for (codec, frames) in codecs() {
            let bytes = stream(&*codec, &frames);
            let faults = Faults { resets: 0.02, ..Faults::lossless() };
            let (mut sim, _) = start(seed, faults, codec, 1);
            let mut remotes = vec![sim.connect(), sim.connect()];
            remotes.extend(sim.dialed());
            for remote in &remotes {
                remote.send(&bytes);
                remote.finish();
            }
            sim.run_until(|_| remotes.iter().all(Remote::is_over)).unwrap();
            for remote in &remotes {
                assert!(bytes.starts_with(&remote.received()), "seed {seed}: {frames:?}");
                lost += u32::from(remote.received_count() < bytes.len());
            }
            sim.shut_down();
            sim.run_to_the_end().unwrap();
        }
    }
    assert!(lost > 100, "only {lost} connections were reset in time");
}
