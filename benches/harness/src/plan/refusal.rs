use std::fmt;

/// A setting that makes no sense: which one, and what would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// As the flag is called, without its dashes.
    pub(crate) field: &'static str,
    pub(crate) problem: String,
}

impl Refusal {
    pub(crate) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "--{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for Refusal {}
