//! Who shares what is equal in guests' memory: the sides of every comparison, by name.

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    dedup::{
        contents::Contents,
        sides::{
            ballast::Ballast,
            ksm::{Ksm, Mode},
            sharer::Sharer,
        },
    },
    kit::error::Error,
};

/// A side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// Plain memory that nobody shares: what guests' speed is compared with.
    #[value(skip)]
    Nobody,
    /// Ballast.
    Ballast,
    /// ksmd that never sleeps.
    Ksmd,
    /// ksmd with its scan-time advisor, which sets its speed; its target is the kernel's default.
    KsmdAdvisor,
}

impl Who {
    /// Its name on the screen, padded.
    pub fn name(self) -> &'static str {
        match self {
            Who::Nobody => "nobody      ",
            Who::Ballast => "ballast     ",
            Who::Ksmd => "ksmd        ",
            Who::KsmdAdvisor => "ksmd-advisor",
        }
    }

    /// Guests with these contents, in the hands of this side. Nothing is shared yet.
    pub fn load(self, contents: &Contents, area_bytes: f64) -> Result<Box<dyn Sharer>, Error> {
        Ok(match self {
            Who::Nobody => Box::new(Ksm::load(contents, Mode::Off)?),
            Who::Ballast => Box::new(Ballast::load(contents, area_bytes)?),
            Who::Ksmd => Box::new(Ksm::load(contents, Mode::Unthrottled)?),
            Who::KsmdAdvisor => Box::new(Ksm::load(contents, Mode::Advisor)?),
        })
    }
}
