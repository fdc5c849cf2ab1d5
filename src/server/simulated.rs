//! What a simulated reactor takes from a server's configuration.

use std::sync::Arc;

use super::config::settings_of;
use super::{Server, Start, StartError};
use crate::connection::Admission;
use crate::driver::Wake;
use crate::handler::Handle;
use crate::net::{Address, SocketOptions};
use crate::reactor::{Command, Control, Joint, Mailbox, Parts, Published, Share};

/// One reactor's share of a server that is not started.
#[derive(Debug)]
pub(crate) struct Simulated<M: Send + 'static> {
    pub(crate) parts: Parts<M>,
    pub(crate) start: Start<M>,
    pub(crate) options: SocketOptions,
    pub(crate) backlog: usize,
    pub(crate) read_buffer: usize,
}

impl Server {
    /// Checks the settings as [`Server::start`] does and makes the parts of one reactor.
    pub(crate) fn simulated<M, W>(self, waker: W) -> Result<Simulated<M>, StartError>
    where
        M: Send + 'static,
        W: Wake + 'static,
    {
        let config = self.config;
        let addresses: Arc<[Address]> = config.check()?.into_iter().enumerate().map(with_port).collect();
        let mailbox = Mailbox::new(config.mailbox, config.mailbox_bytes, Box::new(waker));
        let mailboxes: Arc<[Mailbox<Command<M>>]> = Arc::new([mailbox]);
        let published: Arc<[Published]> = Arc::new([Published::default()]);
        let control = Arc::new(Control::new(1));
        let start = Start {
            reactor: 0,
            handle: Handle::new(Arc::clone(&mailboxes), Arc::clone(&published), Arc::clone(&control)),
            addresses: Arc::clone(&addresses),
        };
        let parts = Parts {
            index: 0,
            settings: settings_of(&config),
            policies: vec![None; addresses.len()],
            accepting: Share::new(Joint::Accepting, &control, &mailboxes),
            serving: Share::new(Joint::Serving, &control, &mailboxes),
            admission: Admission::new(config.max_connections, config.max_connections_per_source),
            mailboxes,
            published,
            control,
        };
        Ok(Simulated {
            parts,
            start,
            options: config.options,
            backlog: config.backlog as usize,
            read_buffer: config.read_buffer,
        })
    }
}

/// Port 0 takes a free port, as it would on a kernel.
fn with_port((index, address): (usize, Address)) -> Address {
    match address {
        Address::Tcp(mut address) if address.port() == 0 => {
            address.set_port(49_152 + index as u16);
            Address::Tcp(address)
        }
        other => other,
    }
}
