//! The sides that share memory: Ballast and ksmd, behind one trait.

pub mod area_cost;
pub mod ballast;
pub mod guest;
pub mod ksm;
mod paced;
pub mod sharer;
pub mod who;
