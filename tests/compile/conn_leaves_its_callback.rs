//! A `Conn` is lent for one callback.

use corelane::{Conn, Flow, Handler, Input, Open};

struct Keeper {
    kept: Option<&'static mut Conn<'static>>,
}

impl Handler for Keeper {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<()> {
        self.kept = Some(conn);
        Open::Accept(())
    }

    fn on_data(&mut self, _: &mut Conn<'_>, _: &mut (), _: &mut Input<'_>) -> Flow {
        Flow::Continue
    }
}

fn main() {}
