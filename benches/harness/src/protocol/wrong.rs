use std::fmt;

/// The most bytes of a reply that an error shows.
const SHOWN: usize = 48;

/// A reply that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Bytes that nobody asked for.
    Unasked { bytes: usize, begin: String },
    /// The first byte of a reply that differs.
    Byte { at: usize, expected: String, received: String },
    /// A reply of HTTP that makes no sense, or not the expected one.
    Http(String),
}

impl Wrong {
    pub(super) fn unasked(bytes: &[u8]) -> Self {
        Self::Unasked { bytes: bytes.len(), begin: shown(bytes) }
    }

    pub(super) fn byte(at: usize, expected: &[u8], received: &[u8]) -> Self {
        Self::Byte { at, expected: shown(expected), received: shown(received) }
    }
}

pub(super) fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(SHOWN)].escape_ascii().to_string()
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unasked { bytes, begin } => {
                write!(formatter, "{bytes} bytes came that were not asked for: `{begin}`")
            }
            Self::Byte { at, expected, received } => {
                write!(formatter, "wrong byte at {at} of a reply: expected `{expected}`, got `{received}`")
            }
            Self::Http(problem) => formatter.write_str(problem),
        }
    }
}

impl std::error::Error for Wrong {}
