//! To and from the types of the crate `http`, for services that have code in their terms. Each of these allocates or
//! copies; requests and replies themselves do not need them.

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::reply::Reply;
use super::request::{Headers, Method, Request, Version};
use super::{ReplyError, encode};

impl TryFrom<&Request<'_>> for http::Method {
    type Error = http::method::InvalidMethod;

    fn try_from(request: &Request<'_>) -> Result<Self, Self::Error> {
        Self::from_bytes(request.method_name().as_bytes())
    }
}

impl TryFrom<Method> for http::Method {
    /// The method is [`Method::Other`]: the request has its name.
    type Error = Method;

    fn try_from(method: Method) -> Result<Self, Method> {
        Ok(match method {
            Method::Get => Self::GET,
            Method::Head => Self::HEAD,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Delete => Self::DELETE,
            Method::Connect => Self::CONNECT,
            Method::Options => Self::OPTIONS,
            Method::Trace => Self::TRACE,
            Method::Patch => Self::PATCH,
            Method::Other => return Err(method),
        })
    }
}

impl TryFrom<&Request<'_>> for Uri {
    /// The target holds what `Uri` does not allow, such as `{`.
    type Error = http::uri::InvalidUri;

    fn try_from(request: &Request<'_>) -> Result<Self, Self::Error> {
        request.target().parse()
    }
}

impl From<Version> for http::Version {
    fn from(version: Version) -> Self {
        match version {
            Version::Http10 => Self::HTTP_10,
            Version::Http11 => Self::HTTP_11,
        }
    }
}

impl TryFrom<&Headers<'_>> for HeaderMap {
    /// More than a map can hold; [`Limits::headers`](super::Limits::headers) allows fewer.
    type Error = http::Error;

    fn try_from(headers: &Headers<'_>) -> Result<Self, http::Error> {
        let mut map = Self::try_with_capacity(headers.len())?;
        for (name, value) in headers.iter() {
            let name = HeaderName::from_bytes(name.as_bytes())?;
            map.try_append(name, HeaderValue::from_bytes(value)?)?;
        }
        Ok(map)
    }
}

impl TryFrom<&Request<'_>> for http::Request<()> {
    type Error = http::Error;

    fn try_from(request: &Request<'_>) -> Result<Self, http::Error> {
        let mut converted = Self::new(());
        *converted.method_mut() = request.try_into()?;
        *converted.uri_mut() = request.try_into()?;
        *converted.version_mut() = request.version().into();
        *converted.headers_mut() = (&request.headers()).try_into()?;
        Ok(converted)
    }
}

impl<T: Default + 'static> Reply<'_, T> {
    /// Adds all headers of a map, but for those that are the layer's.
    pub fn header_map(mut self, map: &HeaderMap) -> Self {
        for (name, value) in map {
            if encode::check(name.as_str(), value.as_bytes()) != Err(ReplyError::ReservedHeader) {
                self = self.header(name.as_str(), value.as_bytes());
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, head};
    use super::*;

    #[test]
    fn a_request_becomes_one_of_the_crate_http() {
        let (mut room, mut more) = (head::ROOM, head::MUCH_ROOM);
        let bytes = b"BREW /a?b HTTP/1.0\r\nHost: c\r\nX: 1\r\nx: 2\r\nY: \xe4\r\n\r\n";
        let head = head::parse(bytes, &mut room, &mut more, &Limits::default()).unwrap().unwrap();
        let request = Request::new(&head);
        let converted = http::Request::try_from(&request).unwrap();
        assert_eq!(converted.method().as_str(), "BREW");
        assert_eq!(converted.uri().path_and_query().unwrap(), "/a?b");
        assert_eq!(converted.version(), http::Version::HTTP_10);
        assert_eq!(converted.headers().len(), 4);
        assert_eq!(converted.headers().get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(converted.headers()["y"].as_bytes(), b"\xe4");
        assert_eq!(http::Method::try_from(Method::Patch), Ok(http::Method::PATCH));
        assert_eq!(http::Method::try_from(Method::Other), Err(Method::Other));
    }
}
