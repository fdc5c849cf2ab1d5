use std::fmt;
use std::io;

use crate::net::{Address, AddressError};

/// A setting that cannot be: which, what it was, and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub(super) field: &'static str,
    pub(super) value: String,
    pub(super) accepted: String,
}

impl ConfigError {
    /// The setting's name, as the method of [`Server`](crate::Server) or the field is called.
    pub fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is not accepted (expected {})", self.field, self.value, self.accepted)
    }
}

impl std::error::Error for ConfigError {}

/// Why a server did not start. Nothing of it is left running.
#[non_exhaustive]
pub enum StartError {
    /// A setting is out of range.
    Config(ConfigError),
    /// An address to listen on cannot be read.
    Address(AddressError),
    /// The kernel refused to listen on an address.
    Listen {
        /// The address.
        address: Address,
        /// What the kernel said.
        error: io::Error,
    },
    /// Something else that is needed could not be had.
    Setup {
        /// What was needed.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The factory or `on_start` panicked.
    Panicked {
        /// On which reactor.
        reactor: usize,
        /// What the panic said, where it said it in text.
        message: String,
    },
}

impl StartError {
    pub(super) fn setup(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Setup { what, error }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Address(error) => error.fmt(f),
            Self::Listen { address, error } => write!(f, "cannot listen on {address}: {error}"),
            Self::Setup { what, error } => write!(f, "{what}: {error}"),
            Self::Panicked { reactor, message } => {
                write!(f, "the handler of reactor {reactor} panicked at start: {message}")
            }
        }
    }
}

impl fmt::Debug for StartError {
    /// As it is displayed, so that `main` may return it and people still read a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Address(error) => Some(error),
            Self::Listen { error, .. } | Self::Setup { error, .. } => Some(error),
            Self::Panicked { .. } => None,
        }
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}
