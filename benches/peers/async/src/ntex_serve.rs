//! HTTP on ntex, whatever reactor its runtime has.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use corelane_peers::Peer;
use ntex::SharedCfg;
use ntex::http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use ntex::http::{HttpService, HttpServiceConfig, KeepAlive, Request, Response};
use ntex::rt::{Runner, System};
use ntex::time::Seconds;

use crate::hello::{BODY, KIND, PATH};

/// Serves until the process ends.
pub fn serve<R: Runner>(peer: Peer, runner: R) -> ! {
    let peer = Arc::new(peer);
    let listener = peer.listen();
    let addr =
        listener.local_addr().unwrap_or_else(|error| peer.die("cannot tell the listener's address", &error));
    let started = Arc::new(AtomicUsize::new(0));
    let peer_of_workers = Arc::clone(&peer);
    let system = System::build().name("peer").disable_signals().build(runner);
    let ended: io::Result<()> = system.block_on(async move {
        let name = "plaintext";
        let config = HttpServiceConfig::new().set_keepalive(KeepAlive::Os).set_client_timeout(Seconds::ZERO);
        let server = ntex::server::build()
            .workers(peer_of_workers.threads())
            // So that SIGTERM does what it does to the other peers.
            .disable_signals()
            .listen(name, listener, async move |_| {
                // Each worker makes its own service, on its own thread.
                peer_of_workers.pin(started.fetch_add(1, Ordering::Relaxed));
                HttpService::h1(answer)
            })?
            .config(name, SharedCfg::new(name).add(config))
            .run();
        corelane_peers::announce(addr);
        server.await
    });
    let error = ended.err().unwrap_or_else(|| io::Error::other("it ended"));
    peer.die("the server failed", &error)
}

async fn answer(request: Request) -> io::Result<Response> {
    let mut response = if request.path() == PATH { Response::Ok() } else { Response::NotFound() };
    response.header(SERVER, HeaderValue::from_static("ntex"));
    response.header(CONTENT_TYPE, HeaderValue::from_static(KIND));
    Ok(if request.path() == PATH { response.body(BODY) } else { response.finish() })
}
