//! The one answer of the peers that speak HTTP: `GET /plaintext`, by the rules of the TechEmpower benchmarks.

/// The path that is answered; all others are not found.
pub const PATH: &str = "/plaintext";

/// The body of the answer.
pub const BODY: &str = "Hello, World!";

/// Its media type.
pub const KIND: &str = "text/plain";
