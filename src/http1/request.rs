use std::fmt;

use super::head::Head;

/// The version of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// The methods of RFC 9110 and PATCH; the text of any is [`Request::method_name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "their names say it all")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// Any other token.
    Other,
}

impl Method {
    pub(super) fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "CONNECT" => Self::Connect,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }
}

/// A request's head, as slices of the connection's input: valid for the callback, no byte copied.
///
/// What is in it has been checked: see the [module](super#what-is-refused).
#[derive(Clone, Copy)]
pub struct Request<'a> {
    head: &'a Head<'a>,
}

impl<'a> Request<'a> {
    pub(super) fn new(head: &'a Head<'a>) -> Self {
        Self { head }
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.head.method
    }

    /// The method as it was sent; methods are case-sensitive.
    pub fn method_name(&self) -> &'a str {
        self.head.method_name
    }

    /// The target as it was sent: `/path?query`, or `*`, or a host and port, or a whole URI.
    pub fn target(&self) -> &'a str {
        self.head.target
    }

    /// The target's path, neither decoded nor normalized. `*` for a whole server; empty for CONNECT.
    pub fn path(&self) -> &'a str {
        self.head.path()
    }

    /// What stands behind the target's `?`, not decoded; `None` without one.
    pub fn query(&self) -> Option<&'a str> {
        self.head.query()
    }

    /// The host and port that the request is for: the target's if it has one, else the `Host` header's; empty if
    /// neither says.
    pub fn host(&self) -> &'a str {
        // It was checked, and is ASCII.
        std::str::from_utf8(self.head.host).unwrap_or_default()
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// The headers, in the order in which they came.
    pub fn headers(&self) -> Headers<'a> {
        Headers { fields: self.head.fields }
    }

    /// The value of the first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().get(name)
    }

    /// How long the body is, where the request says so: `Some(0)` without one, `None` for chunks.
    pub fn content_length(&self) -> Option<u64> {
        self.head.framing.length()
    }

    /// Whether a body follows, for [`Service::on_body`](super::Service::on_body) and
    /// [`Service::on_body_end`](super::Service::on_body_end).
    pub fn has_body(&self) -> bool {
        self.content_length() != Some(0)
    }

    /// Whether the connection stays open behind the reply as far as the client is concerned.
    pub fn is_keep_alive(&self) -> bool {
        self.head.keep_alive
    }

    /// Whether the client asks to switch to another protocol: `Connection: upgrade` with an `Upgrade` header,
    /// whose value is in [`Request::headers`].
    pub fn is_upgrade(&self) -> bool {
        self.head.upgrade
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method_name())
            .field("target", &self.target())
            .field("version", &self.version())
            .field("headers", &self.headers())
            .finish_non_exhaustive()
    }
}

/// Headers or trailers, in the order in which they came.
#[derive(Clone, Copy, Default)]
pub struct Headers<'a> {
    fields: &'a [httparse::Header<'a>],
}

impl<'a> Headers<'a> {
    pub(super) fn new(fields: &'a [httparse::Header<'a>]) -> Self {
        Self { fields }
    }

    /// The value of the first of this name, in any case.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The values of all of this name, in any case.
    pub fn get_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Name and value of each. Names are tokens; values hold no control character but the tab, and no white space
    /// at either end.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.fields.iter().map(|field| (field.name, field.value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, value.escape_ascii()))).finish()
    }
}
