//! The command line of `preflight`.

use anyhow::{Result, ensure};

use super::limit::Role;

/// The most connections that can be asked for.
const MOST_CONNECTIONS: u64 = 100_000_000;

/// Tell which limits of this host many connections meet, and what to change, in numbers.
///
/// Changes nothing and needs no privileges. The exit status is 5 if the connections do not fit, even spread
/// over processes and source addresses as the commands of this program do.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Connections to be held, 1 to 100000000.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub(super) connections: u64,
    /// Which ends of the connections are on this host.
    #[arg(long, value_enum, default_value_t = Role::Both)]
    pub(super) role: Role,
    /// For people, or an array of limits for programs.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

impl Args {
    pub(super) fn check(&self) -> Result<()> {
        let connections = 1..=MOST_CONNECTIONS;
        ensure!(connections.contains(&self.connections), "--connections must be 1 to {MOST_CONNECTIONS}");
        Ok(())
    }
}
