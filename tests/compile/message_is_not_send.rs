//! What other threads send to a reactor must be `Send`.

use std::rc::Rc;

use corelane::{Conn, Flow, Handler, Input, Open};

struct Local;

impl Handler for Local {
    type Session = ();
    type Message = Rc<u8>;

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        Open::Accept(())
    }

    fn on_data(&mut self, _: &mut Conn<'_>, _: &mut (), _: &mut Input<'_>) -> Flow {
        Flow::Continue
    }
}

fn main() {}
