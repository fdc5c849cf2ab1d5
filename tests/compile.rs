//! What must not compile: the types keep on their reactor what belongs there.
//!
//! The compiler words some of its messages by what else is in scope, so they are compared in the one
//! configuration that the whole suite runs in.
#![cfg(all(feature = "sim", feature = "bytes"))]

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile/*.rs");
}
