//! What several of these peers share; flags, listeners and pinning are those of `corelane-peers`.

pub mod hello;
pub mod hyper_serve;
pub mod monoio_echo;
pub mod ntex_serve;
