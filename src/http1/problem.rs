use http::StatusCode;

/// Why a request was refused by the layer itself. Each closes its connection behind the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The request line is malformed: 400.
    RequestLine,
    /// The version is not 1.0 or 1.1: 505.
    Version,
    /// The target has no form that its method may have, or an invalid character: 400.
    Target,
    /// A header line is malformed: 400.
    Header,
    /// `Host` is missing, repeated, invalid, or not the target's: 400.
    Host,
    /// The length of the body is ambiguous: 400.
    Framing,
    /// The body has a transfer coding that is not supported: 501.
    Coding,
    /// An expectation other than `100-continue`: 417.
    Expectation,
    /// A chunk of the body, or the trailers behind it, are malformed: 400.
    Chunk,
    /// The head is larger than [`Limits::head`](super::Limits::head): 431.
    HeadSize,
    /// More headers than [`Limits::headers`](super::Limits::headers): 431.
    HeaderCount,
    /// The target is longer than [`Limits::target`](super::Limits::target): 414.
    TargetLength,
    /// The body is larger than [`Limits::body`](super::Limits::body): 413.
    BodySize,
    /// A chunk's extensions are longer than [`Limits::chunk_extension`](super::Limits::chunk_extension): 400.
    ChunkExtension,
    /// The trailers are larger than [`Limits::head`](super::Limits::head) or more than
    /// [`Limits::headers`](super::Limits::headers): 431.
    Trailers,
    /// The stream ended within a request: 400.
    Truncated,
    /// The head was not whole within [`Timeouts::head`](super::Timeouts::head): 408.
    HeadTimeout,
    /// The body came more slowly than [`Timeouts::body`](super::Timeouts::body): 408.
    BodyRate,
}

impl Problem {
    /// How many there are.
    pub const COUNT: usize = 18;

    /// All of them, in the order of [`Problem::index`].
    pub const ALL: [Self; Self::COUNT] = [
        Self::RequestLine,
        Self::Version,
        Self::Target,
        Self::Header,
        Self::Host,
        Self::Framing,
        Self::Coding,
        Self::Expectation,
        Self::Chunk,
        Self::HeadSize,
        Self::HeaderCount,
        Self::TargetLength,
        Self::BodySize,
        Self::ChunkExtension,
        Self::Trailers,
        Self::Truncated,
        Self::HeadTimeout,
        Self::BodyRate,
    ];

    /// Its place in [`Problem::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name, fit for a label of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestLine => "request_line",
            Self::Version => "version",
            Self::Target => "target",
            Self::Header => "header",
            Self::Host => "host",
            Self::Framing => "framing",
            Self::Coding => "coding",
            Self::Expectation => "expectation",
            Self::Chunk => "chunk",
            Self::HeadSize => "head_size",
            Self::HeaderCount => "header_count",
            Self::TargetLength => "target_length",
            Self::BodySize => "body_size",
            Self::ChunkExtension => "chunk_extension",
            Self::Trailers => "trailers",
            Self::Truncated => "truncated",
            Self::HeadTimeout => "head_timeout",
            Self::BodyRate => "body_rate",
        }
    }

    /// The status that answers it.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::HeadSize | Self::HeaderCount | Self::Trailers => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::TargetLength => StatusCode::URI_TOO_LONG,
            Self::BodySize => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTimeout | Self::BodyRate => StatusCode::REQUEST_TIMEOUT,
            Self::RequestLine
            | Self::Target
            | Self::Header
            | Self::Host
            | Self::Framing
            | Self::Chunk
            | Self::ChunkExtension
            | Self::Truncated => StatusCode::BAD_REQUEST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_place_and_a_name_of_its_own() {
        for (place, problem) in Problem::ALL.into_iter().enumerate() {
            assert_eq!(problem.index(), place);
            assert!(Problem::ALL[..place].iter().all(|other| other.name() != problem.name()));
            assert!(problem.status().is_client_error() || problem.status().is_server_error());
        }
    }
}
