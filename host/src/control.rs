//! Ten times a second: what guests reported, divided anew by `policy`, and told to them.

pub(crate) mod balloons;
pub(crate) mod control_loop;
pub(crate) mod cow;
pub(crate) mod decisions;
pub(crate) mod episode;
pub(crate) mod hurry;
pub(crate) mod ledger;
pub(crate) mod maintenance;
pub(crate) mod outside;
pub(crate) mod prices;
pub(crate) mod rates;
pub(crate) mod remedies;
pub(crate) mod shortfall;
pub(crate) mod situation;
