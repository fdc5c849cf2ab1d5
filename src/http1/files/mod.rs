//! A service of static files: a directory below a prefix of paths, for services that also serve other things.
//!
//! ```no_run
//! use corelane::http1::files::{FileBody, Files};
//! use corelane::http1::{Exchange, Request, Service, StatusCode};
//!
//! struct Site {
//!     files: Files,
//! }
//!
//! impl Service for Site {
//!     /// A file whose turn has not come, as replies before it are not whole.
//!     type State = Option<FileBody>;
//!     type Message = ();
//!
//!     fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, Option<FileBody>>) {
//!         let Some(path) = request.path().strip_prefix("/files/") else {
//!             // It fails only where the client has gone.
//!             let _ = exchange.reply(StatusCode::NOT_FOUND).send(b"");
//!             return;
//!         };
//!         if let Ok(Some(body)) = self.files.answer(request, path, exchange) {
//!             body.keep(exchange);
//!         }
//!     }
//!
//!     fn on_drained(&mut self, exchange: &mut Exchange<'_, Option<FileBody>>) {
//!         FileBody::go_on(exchange);
//!     }
//! }
//! # let _ = Site { files: Files::new("site")? };
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! What it does: GET and HEAD; an index for directories, and a redirection to the name with a slash; `ETag` and
//! `Last-Modified`, and the conditions on them; one range of a file (several at once get the whole file, as RFC 9110
//! allows); content types by the endings of names. Files are sent by the kernel
//! ([`Conn::write_file`](crate::Conn::write_file)) and are never in memory. There are no listings.
//!
//! What it never does: leave its directory. Names that begin with a dot (but `.well-known`), empty ones, and those
//! with an encoded slash, a backslash or a NUL are not found; nor is what a symbolic link outside leads to. On Linux
//! 5.6 and later the kernel itself keeps every step of the way below the directory (openat2(2)); elsewhere no symbolic
//! link is followed at all.
//!
//! Opening a file and asking for its length make the reactor wait for the file system: two short system calls where
//! the directory is in the page cache, a disk's time where it is not. On a network file system, or behind slow disks,
//! serve files from other reactors than those whose tail matters.
//!
//! An `ETag` is made of a file's time of modification, in nanoseconds, and its length. `Last-Modified` is never before
//! 1970 nor later than `Date`, whatever the file system says. Whoever replaces files should rename new ones into place:
//! one that is shortened while it is sent ends its connection
//! ([`CloseReason::FileTruncated`](crate::CloseReason::FileTruncated)), and one that is overwritten may be sent in
//! part old and in part new.

mod conditions;
mod path;
mod root;
mod types;
mod version;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;

use super::{Exchange, Length, Method, Reply, ReplyError, Request};
use crate::FileSlice;
use conditions::{Entity, Verdict, judge};
use path::Named;
use root::Root;
use types::content_type;

/// A directory whose files are served. See the [module](self).
///
/// It has the directory open: what is renamed into its place later is not served.
#[derive(Debug)]
pub struct Files {
    root: Root,
    index: Option<PathBuf>,
    cache_control: Option<String>,
}

/// The body of a reply that waits until the replies before it are whole.
#[derive(Debug, Clone)]
pub struct FileBody(FileSlice);

/// Why nothing is found.
#[derive(Debug)]
enum Missing {
    /// It is a directory, whose name ends with a slash.
    Slash,
    Status(StatusCode),
}

/// A file that was found.
struct Found {
    file: File,
    length: u64,
    modified: SystemTime,
    content_type: &'static str,
}

impl Files {
    /// Serves the files below `root`; of directories, `index.html`.
    ///
    /// # Errors
    ///
    /// Where it is no directory, or cannot be opened.
    pub fn new(root: impl AsRef<Path>) -> io::Result<Self> {
        let root = Root::open(root.as_ref())?;
        Ok(Self { root, index: Some("index.html".into()), cache_control: None })
    }

    /// The name of the file that stands for its directory; `None`: directories are not found.
    pub fn index(mut self, name: Option<&str>) -> Self {
        self.index = name.map(PathBuf::from);
        self
    }

    /// A `Cache-Control` header for what is found, such as `max-age=3600`. None unless set.
    pub fn cache_control(mut self, value: impl Into<String>) -> Self {
        self.cache_control = Some(value.into());
        self
    }

    /// Answers a request with the file that `path` names: what the request's path has below the prefix, not decoded.
    /// What is wrong with the request is answered too.
    ///
    /// `Some` is the body of a reply whose turn has not come: keep it ([`FileBody::keep`]) until
    /// [`Service::on_drained`](super::Service::on_drained).
    ///
    /// # Errors
    ///
    /// Those of a reply: it was begun before, or the exchange is over.
    pub fn answer<T: Default + 'static>(
        &self,
        request: &Request<'_>,
        path: &str,
        exchange: &mut Exchange<'_, T>,
    ) -> Result<Option<FileBody>, ReplyError> {
        let is_get = request.method() == Method::Get;
        if !is_get && request.method() != Method::Head {
            let reply = exchange.reply(StatusCode::METHOD_NOT_ALLOWED).header("allow", "GET, HEAD");
            return text(reply, b"only GET and HEAD\n");
        }
        match self.find(path) {
            Ok(found) => self.send(request, is_get, found, exchange),
            Err(Missing::Slash) => {
                let reply = exchange.reply(StatusCode::MOVED_PERMANENTLY);
                text(reply.header("location", with_slash(request)), b"it is a directory\n")
            }
            Err(Missing::Status(status)) => {
                let reason = status.canonical_reason().unwrap_or("");
                text(exchange.reply(status), format!("{reason}\n").as_bytes())
            }
        }
    }

    fn find(&self, path: &str) -> Result<Found, Missing> {
        let not_found = Missing::Status(StatusCode::NOT_FOUND);
        let Some(Named { mut path, is_directory }) = path::decode(path) else { return Err(not_found) };
        if is_directory {
            let Some(index) = &self.index else { return Err(not_found) };
            path.push(index);
        }
        let file = self.root.find(&path).map_err(|error| missing(&error))?;
        let metadata = file.metadata().map_err(|error| missing(&error))?;
        if metadata.is_dir() && !is_directory {
            return Err(Missing::Slash);
        }
        if !metadata.is_file() {
            return Err(not_found);
        }
        let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
        Ok(Found { file, length: metadata.len(), modified, content_type: content_type(&path) })
    }

    fn send<T: Default + 'static>(
        &self,
        request: &Request<'_>,
        is_get: bool,
        found: Found,
        exchange: &mut Exchange<'_, T>,
    ) -> Result<Option<FileBody>, ReplyError> {
        let Found { file, length, modified, content_type } = found;
        let date = date(exchange);
        let (tag, modified) = (version::tag(modified, length), version::sayable(modified, date));
        let verdict = judge(request.headers(), is_get, &Entity { tag: &tag, modified, length, date });
        let (status, offset, count) = match verdict {
            Verdict::Whole => (StatusCode::OK, 0, length),
            Verdict::Part { offset, length } => (StatusCode::PARTIAL_CONTENT, offset, length),
            Verdict::NotModified => (StatusCode::NOT_MODIFIED, 0, 0),
            Verdict::PreconditionFailed => {
                let reply = exchange.reply(StatusCode::PRECONDITION_FAILED);
                return text(reply, b"it is another version\n");
            }
            Verdict::Unsatisfiable => {
                let reply = exchange.reply(StatusCode::RANGE_NOT_SATISFIABLE);
                return text(reply.header("content-range", format!("bytes */{length}")), b"it is shorter\n");
            }
        };
        let modified = httpdate::fmt_http_date(modified);
        let mut reply = exchange.reply(status).header("etag", &tag).header("last-modified", modified);
        if let Some(value) = &self.cache_control {
            reply = reply.header("cache-control", value);
        }
        if status == StatusCode::NOT_MODIFIED {
            return reply.send(b"").map(|()| None);
        }
        reply = reply.header("accept-ranges", "bytes").header("content-type", content_type);
        if status == StatusCode::PARTIAL_CONTENT {
            let last = offset + count - 1;
            reply = reply.header("content-range", format!("bytes {offset}-{last}/{length}"));
        }
        // A file that is longer than a range can say is none that a file system has.
        let slice = FileSlice::new(file, offset, count).map_err(|_| ReplyError::Length)?;
        reply.stream(Length::Known(count))?;
        FileBody(slice).send(exchange)
    }
}

impl FileBody {
    /// Sends it, and ends the reply, if its turn has come; else it is given back.
    ///
    /// # Errors
    ///
    /// Those of a reply.
    pub fn send<T: Default + 'static>(
        self,
        exchange: &mut Exchange<'_, T>,
    ) -> Result<Option<Self>, ReplyError> {
        let slice = self.0.clone();
        let written = exchange.write_by(slice.len(), |core, id| {
            let written = core.write_file(id, slice);
            if !written.is_taken() {
                // The head has promised it.
                core.abort(id);
            }
            written
        });
        match written {
            Err(ReplyError::Turn) => Ok(Some(self)),
            Err(error) => Err(error),
            Ok(_) => exchange.end().map(|()| None),
        }
    }

    /// Keeps it in the state of its exchange.
    pub fn keep(self, exchange: &mut Exchange<'_, Option<Self>>) {
        if let Some(state) = exchange.state() {
            *state = Some(self);
        }
    }

    /// Sends what the state of an exchange keeps, if its turn has come: for
    /// [`Service::on_drained`](super::Service::on_drained).
    pub fn go_on(exchange: &mut Exchange<'_, Option<Self>>) {
        if let Some(body) = exchange.state().and_then(Option::take)
            && let Ok(Some(body)) = body.send(exchange)
        {
            body.keep(exchange);
        }
    }
}

fn text<T: Default + 'static>(reply: Reply<'_, T>, text: &[u8]) -> Result<Option<FileBody>, ReplyError> {
    reply.header("content-type", "text/plain; charset=utf-8").send(text).map(|()| None)
}

/// When the reply is made, as its `Date` will say: it may be a turn behind the clock.
fn date<T: Default + 'static>(exchange: &Exchange<'_, T>) -> SystemTime {
    let said = exchange.layer.config.date.then(|| exchange.layer.date.line());
    let said = said.and_then(|line| std::str::from_utf8(line).ok()?.trim_end().strip_prefix("date: "));
    said.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now)
}

/// What to say of a file that cannot be opened.
fn missing(error: &io::Error) -> Missing {
    Missing::Status(match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG) => StatusCode::NOT_FOUND,
        // A link that leads out of the root, or in circles.
        Some(libc::EXDEV | libc::ELOOP) => StatusCode::NOT_FOUND,
        // A Unix socket (the last on macOS and the BSDs), or a device that is not there: no file to be served.
        Some(libc::ENXIO | libc::ENODEV | libc::EOPNOTSUPP) => StatusCode::NOT_FOUND,
        // The second is how a container says it of a device.
        Some(libc::EACCES | libc::EPERM) => StatusCode::FORBIDDEN,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => StatusCode::SERVICE_UNAVAILABLE,
        _ => {
            tracing::warn!(%error, "cannot open a file");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    })
}

/// The target with a slash behind its path, relative to itself: so it cannot lead to another host.
fn with_slash(request: &Request<'_>) -> String {
    let name = request.path().rsplit('/').next().unwrap_or("");
    match request.query() {
        Some(query) => format!("./{name}/?{query}"),
        None => format!("./{name}/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_not_found() {
        for (error, expected) in [
            (libc::ENOENT, StatusCode::NOT_FOUND),
            (libc::ELOOP, StatusCode::NOT_FOUND),
            (libc::ENXIO, StatusCode::NOT_FOUND),
            (libc::ENODEV, StatusCode::NOT_FOUND),
            (libc::EOPNOTSUPP, StatusCode::NOT_FOUND),
            (libc::EACCES, StatusCode::FORBIDDEN),
            (libc::EPERM, StatusCode::FORBIDDEN),
            (libc::EMFILE, StatusCode::SERVICE_UNAVAILABLE),
            (libc::EIO, StatusCode::INTERNAL_SERVER_ERROR),
        ] {
            let error = io::Error::from_raw_os_error(error);
            assert!(matches!(missing(&error), Missing::Status(status) if status == expected), "{error}");
        }
    }
}
