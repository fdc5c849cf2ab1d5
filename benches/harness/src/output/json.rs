//! Results as JSON: written, and read back with care.

use std::io::Write;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::result::{RunResult, SCHEMA};

/// Writes a result, indented, so that two of them can be compared line by line.
pub(super) fn write(mut file: impl Write, result: &RunResult) -> Result<()> {
    serde_json::to_writer_pretty(&mut file, result)
        .map_err(std::io::Error::from)
        .and_then(|()| file.write_all(b"\n"))
        .context("cannot write the result")
}

/// Reads a result; says in one line why that cannot be done.
pub(super) fn read(text: &str) -> Result<RunResult> {
    let value: Value = serde_json::from_str(text).context("not JSON")?;
    match value.get("schema").map(Value::as_u64) {
        None => bail!("not a result of corelane-bench: it has no `schema`"),
        Some(Some(version)) if version == u64::from(SCHEMA) => {}
        Some(Some(version)) if version > u64::from(SCHEMA) => bail!(
            "its schema is {version}, but this corelane-bench reads {SCHEMA}: \
             read it with the corelane-bench that wrote it, or a newer one"
        ),
        Some(_) => bail!(
            "its schema is {}, but this corelane-bench reads {SCHEMA}: measure again, \
             or read it with the corelane-bench that wrote it",
            value["schema"]
        ),
    }
    RunResult::deserialize(value).context("a result that cannot be understood")
}
