//! The other end of HTTP: what the verbs of the command line ask of a running host.

pub(crate) mod connection;
pub(crate) mod guests;
pub(crate) mod host;
pub(crate) mod policy;
