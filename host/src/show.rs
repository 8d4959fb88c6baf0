//! How it goes, for people and programs: the live table, the summary, the report, and HTTP.

pub mod display;
pub(crate) mod explain;
pub(crate) mod gain;
pub(crate) mod http;
pub(crate) mod report;
pub(crate) mod summary;
pub(crate) mod table;
pub(crate) mod totals;
