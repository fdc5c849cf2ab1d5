//! HTTP server on actix-web.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use actix_web::http::{KeepAlive, StatusCode};
use actix_web::web::Bytes;
use actix_web::{App, HttpResponse, HttpServer, web};
use corelane_peers::Peer;
use corelane_peers_async::hello::{BODY, KIND, PATH};

fn main() -> ! {
    let about = "HTTP server on actix-web, answering GET /plaintext";
    let peer = Arc::new(Peer::with_one_listener(env!("CARGO_BIN_NAME"), about));
    let listener = peer.listen();
    let addr =
        listener.local_addr().unwrap_or_else(|error| peer.die("cannot tell the listener's address", &error));
    let started = Arc::new(AtomicUsize::new(0));
    let peer_of_workers = Arc::clone(&peer);
    let server = HttpServer::new(move || {
        // Each worker makes its own application, on its own thread.
        peer_of_workers.pin(started.fetch_add(1, Ordering::Relaxed));
        App::new().service(web::resource(PATH).route(web::get().to(plaintext)))
    })
    .workers(peer.threads())
    .keep_alive(KeepAlive::Os)
    .client_request_timeout(Duration::ZERO)
    // So that SIGTERM does what it does to the other peers.
    .disable_signals()
    .listen(listener)
    .unwrap_or_else(|error| peer.die("cannot take the listener", &error));
    peer.announce(addr);
    let ended = actix_web::rt::System::new().block_on(server.run());
    let error = ended.err().unwrap_or_else(|| std::io::Error::other("it ended"));
    peer.die("the server failed", &error)
}

async fn plaintext() -> HttpResponse<Bytes> {
    let mut response = HttpResponse::with_body(StatusCode::OK, Bytes::from_static(BODY.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("actix"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(KIND));
    response
}
