//! HTTP on hyper, whatever runtime of tokio it runs on.

use std::convert::Infallible;

use bytes::Bytes;
use corelane_peers::tokio_serve::Service;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, SERVER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::hello::{BODY, KIND, PATH};

/// Answers on each connection.
#[derive(Debug)]
pub struct Hyper;

impl Service for Hyper {
    async fn serve(stream: TcpStream) {
        let connection = http1::Builder::new()
            .pipeline_flush(true)
            .serve_connection(TokioIo::new(stream), service_fn(answer));
        let _ = connection.await;
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let found = request.uri().path() == PATH;
    let mut response = Response::new(Full::new(Bytes::from_static(if found { BODY } else { "" }.as_bytes())));
    if !found {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("hyper"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(KIND));
    Ok(response)
}
