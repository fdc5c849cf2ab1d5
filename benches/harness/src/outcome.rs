//! Files that outcomes are written to.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Creates the file for the outcome: better to fail now than after the measurement.
pub(crate) fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Writes an outcome as JSON.
pub(crate) fn write(file: File, outcome: &Value) -> Result<()> {
    let mut file = BufWriter::new(file);
    serde_json::to_writer(&mut file, outcome)
        .map_err(std::io::Error::from)
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.flush())
        .context("cannot write the outcome")
}
