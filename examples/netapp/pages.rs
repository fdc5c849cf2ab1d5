//! The pages that are the same for everybody.

use std::fmt::Display;

use corelane::http1::{Exchange, Fields, ReplyError, StatusCode};
use serde::Serialize;

use crate::service::State;

/// The header lines of these pages, checked once instead of for each reply.
pub(crate) struct Pages {
    text: Fields,
    json: Fields,
}

#[derive(Serialize)]
struct Greeting {
    message: &'static str,
}

impl Pages {
    pub(crate) fn new() -> Self {
        let fields = |content_type| {
            Fields::new(&[("server", "corelane"), ("content-type", content_type)]).expect("valid headers")
        };
        Self { text: fields("text/plain"), json: fields("application/json") }
    }

    /// "Hello, World!", for benchmarks.
    pub(crate) fn plaintext(&self, exchange: &mut Exchange<'_, State>) -> Result<(), ReplyError> {
        exchange.reply(StatusCode::OK).fields(&self.text).send(b"Hello, World!")
    }

    /// The same as JSON, which is to be made anew for each reply.
    pub(crate) fn json(&self, exchange: &mut Exchange<'_, State>) -> Result<(), ReplyError> {
        let mut room = [0; 64];
        let mut rest = &mut room[..];
        let made = serde_json::to_writer(&mut rest, &Greeting { message: "Hello, World!" });
        let left = rest.len();
        let length = room.len() - left;
        match made {
            Ok(()) => exchange.reply(StatusCode::OK).fields(&self.json).send(&room[..length]),
            Err(error) => self.text(exchange, StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }

    /// A line for people.
    pub(crate) fn text(
        &self,
        exchange: &mut Exchange<'_, State>,
        status: StatusCode,
        line: impl Display,
    ) -> Result<(), ReplyError> {
        exchange.reply(status).fields(&self.text).send(format!("{line}\n").as_bytes())
    }
}
