//! How a command ends: the exit statuses, and how an error gets its own.
//!
//! Whoever fails for a reason that has a status says so where it is known, by [`ends`] or
//! [`WithStatus::status`]; contexts may be added to the error later. `main` alone asks for it.

use std::fmt;
use std::process::ExitCode;

use anyhow::{Error, Result};

/// Why a command ended, as its exit status tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// All went well, and what was asserted held.
    Fine = 0,
    /// A gate or a check did not hold; also whatever has no status of its own.
    Failed = 1,
    /// The command line, or a file that it names, makes no sense.
    Usage = 2,
    /// The target could not be reached, or it ended or closed its connections.
    Unreachable = 3,
    /// The target sent what it should not have.
    WrongData = 4,
    /// This host's limits do not allow it.
    HostLimits = 5,
    /// The generator could not keep its schedule, so the numbers would be about itself.
    GeneratorBehind = 6,
    /// Interrupted: what had been measured was written as a partial result. As of a shell's SIGINT.
    Interrupted = 130,
}

impl Status {
    /// The status of an error: the outermost that it was given, or [`Status::Failed`].
    pub(crate) fn of(error: &Error) -> Self {
        error.downcast_ref::<Ended>().map_or(Self::Failed, |ended| ended.status)
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// An error with its exit status. It reads as the error that it was made of.
#[derive(Debug)]
struct Ended {
    status: Status,
    error: Error,
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#}", self.error)
    }
}

impl std::error::Error for Ended {}

/// An error that ends the command with `status`, and says `why`: a text, or another error.
pub(crate) fn ends(status: Status, why: impl Into<Why>) -> Error {
    Error::new(Ended { status, error: why.into().0 })
}

/// What an error says.
#[derive(Debug)]
pub(crate) struct Why(Error);

impl From<Error> for Why {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<String> for Why {
    fn from(text: String) -> Self {
        Self(Error::msg(text))
    }
}

impl From<&'static str> for Why {
    fn from(text: &'static str) -> Self {
        Self(Error::msg(text))
    }
}

/// Gives errors a status on their way up.
pub(crate) trait WithStatus<T> {
    /// An error is to end the command with this status, unless one further out says otherwise.
    fn status(self, status: Status) -> Result<T>;
}

impl<T, E: Into<Error>> WithStatus<T> for Result<T, E> {
    fn status(self, status: Status) -> Result<T> {
        self.map_err(|error| ends(status, error.into()))
    }
}

/// The one line that says why a command failed.
pub(crate) fn line(error: &Error) -> String {
    let text = format!("{error:#}");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn an_error_keeps_its_status_under_contexts() {
        let error = ends(Status::WrongData, "byte 7 is wrong").context("connection 3").context("round 1");
        assert_eq!(Status::of(&error), Status::WrongData);
        assert_eq!(line(&error), "round 1: connection 3: byte 7 is wrong");
    }

    #[test]
    fn an_error_without_a_status_is_a_failure() {
        assert_eq!(Status::of(&anyhow!("something")), Status::Failed);
        assert_eq!(Status::of(&anyhow!("something").context("somewhere")), Status::Failed);
    }

    #[test]
    fn the_outermost_status_counts_and_nothing_is_said_twice() {
        let inner: Result<()> = Err(anyhow!("refused").context("cannot connect"));
        let error =
            inner.status(Status::Unreachable).context("worker 2").status(Status::HostLimits).unwrap_err();
        assert_eq!(Status::of(&error), Status::HostLimits);
        assert_eq!(line(&error), "worker 2: cannot connect: refused");
    }

    #[test]
    fn what_is_said_stands_on_one_line() {
        assert_eq!(line(&anyhow!("first\n\n  second\n")), "first; second");
    }
}
