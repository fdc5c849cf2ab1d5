//! The factory runs on every reactor's thread.

use std::cell::RefCell;
use std::rc::Rc;

use corelane::{Conn, Flow, Handler, Input, Open, Server};

struct Counter(Rc<RefCell<u64>>);

impl Handler for Counter {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        *self.0.borrow_mut() += 1;
        Open::Accept(())
    }

    fn on_data(&mut self, _: &mut Conn<'_>, _: &mut (), _: &mut Input<'_>) -> Flow {
        Flow::Continue
    }
}

fn main() {
    let shared = Rc::new(RefCell::new(0));
    let _ = Server::new().start(move |_| Counter(Rc::clone(&shared)));
}
