use corelane::http1::{Config, Protocol, Service};
use corelane::{Address, Handle, Running, Start};

use super::{Client, join_in_time};

/// One reactor that serves HTTP on a TCP port.
#[derive(Debug)]
pub(crate) struct Served<S: Service> {
    pub(crate) http: Protocol,
    pub(crate) handle: Handle<S::Message>,
    pub(crate) address: Address,
    running: Option<Running<S::Message>>,
}

pub(crate) fn serve<S: Service>(
    config: Config,
    service: impl Fn(&Start<S::Message>) -> S + Send + Sync + Clone + 'static,
) -> Served<S> {
    let http = config.build().unwrap();
    let handlers = http.clone();
    let server = http.server().reactors(1).listen("127.0.0.1:0");
    let running = server.start(move |start| handlers.handler(service(start))).unwrap();
    let address = running.addresses().next().unwrap().clone();
    Served { http, handle: running.handle(), address, running: Some(running) }
}

impl<S: Service> Served<S> {
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.address)
    }

    /// Waits for the end of a server that was told to shut down.
    pub(crate) fn join(mut self) -> corelane::Report
    where
        S::Message: std::fmt::Debug,
    {
        join_in_time(self.running.take().unwrap())
    }
}

/// A test that forgets to end its server would leave threads behind.
impl<S: Service> Drop for Served<S> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.handle.stop_now();
            let report = running.join();
            if !std::thread::panicking() {
                assert_eq!(report.panics.len(), 0, "{:?}", report.panics);
            }
        }
    }
}

impl Client {
    /// Receives just these bytes.
    #[track_caller]
    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        let mut count = 0;
        while count < got.len() && got[..count] == bytes[..count] {
            match std::io::Read::read(self, &mut got[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) => panic!("cannot receive: {error} behind {}", got[..count].escape_ascii()),
            }
        }
        assert!(
            got[..count] == *bytes,
            "\nexpected {}\nreceived {}",
            bytes.escape_ascii(),
            got[..count].escape_ascii()
        );
    }

    /// Receives nothing but the end of the stream.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let rest = self.receive_all();
        assert!(rest.is_empty(), "received {}", rest.escape_ascii());
    }
}
