//! Bytes of the input are lent for one callback.

use corelane::{Conn, Flow, Handler, Input, Open};

struct Hoarder {
    kept: Vec<&'static [u8]>,
}

impl Handler for Hoarder {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        Open::Accept(())
    }

    fn on_data(&mut self, _: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
        self.kept.push(input.take_all());
        Flow::Continue
    }
}

fn main() {}
