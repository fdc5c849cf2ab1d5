use std::error::Error;
use std::fmt;

/// Why bytes are no frame, or a payload cannot become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameError {
    /// The payload is, or is announced to be, larger than the codec's maximum.
    TooLarge {
        /// How large; where nothing announces it, one more than the maximum.
        length: u64,
        /// The codec's maximum.
        maximum: usize,
    },
    /// The stream ended within a frame.
    Truncated {
        /// How much of it there was.
        bytes: usize,
    },
    /// The header makes no sense; what about it.
    Malformed(&'static str),
    /// A payload to be sent is not as long as every frame of this codec.
    WrongLength {
        /// How long it is.
        length: usize,
        /// How long frames are.
        expected: usize,
    },
    /// A payload to be sent holds the delimiter that would end it.
    DelimiterInside {
        /// Where.
        at: usize,
    },
}

impl FrameError {
    /// For frames whose length nothing announces: the same however much of one has come.
    pub(super) const fn longer_than(maximum: usize) -> Self {
        Self::TooLarge { length: maximum as u64 + 1, maximum }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { length, maximum } => {
                write!(f, "a frame of {length} bytes is larger than the {maximum} allowed")
            }
            Self::Truncated { bytes } => write!(f, "the stream ended {bytes} bytes into a frame"),
            Self::Malformed(what) => write!(f, "malformed frame: {what}"),
            Self::WrongLength { length, expected } => {
                write!(f, "a payload of {length} bytes where each has {expected}")
            }
            Self::DelimiterInside { at } => write!(f, "the payload holds the delimiter, at byte {at}"),
        }
    }
}

impl Error for FrameError {}
