//! The scenarios by name, and what memory each takes.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::{
    dedup::contents::{Contents, Placement},
    kit::error::Error,
};

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Eight guests, three quarters common, at the same addresses.
    #[value(name = "S1-same-address")]
    SameAddress,
    /// The same, but pages that differ do so in their last word only.
    #[value(name = "S1-near-equal")]
    NearEqual,
    /// As S1, at other addresses in every guest, in extents of 4 pages on average.
    #[value(name = "S2-extents")]
    Extents,
    /// The same, no two neighbours together: the worst case.
    #[value(name = "S2-single-pages")]
    SinglePages,
    /// Three memory images.
    #[value(name = "S3-images-3")]
    Images3,
    /// Six memory images.
    #[value(name = "S3-images-6")]
    Images6,
    /// Guests that change 5 % of their pages a second, any of them.
    #[value(name = "S4-uniform")]
    LiveUniform,
    /// Guests that change 5 % of their pages a second, nine times of ten in the same tenth of their memory.
    #[value(name = "S4-hot")]
    LiveHot,
    /// 4 GiB of guests in which nothing changes.
    #[value(name = "S5-idle")]
    Idle,
    /// First writes to shared pages.
    #[value(name = "first-write")]
    FirstWrite,
    /// Guests at work while their memory is scanned for the first time.
    #[value(name = "slowdown")]
    Slowdown,
}

impl Name {
    /// As the command line has it.
    pub fn text(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Memory images it takes.
    pub fn images_needed(self) -> usize {
        match self {
            Name::Images3 => 3,
            Name::Images6 => 6,
            _ => 0,
        }
    }

    /// The memory of a scenario that merges what holds still (S1, S2, S3).
    pub fn still_memory(self, guests: u32, pages: u32, images: &[PathBuf]) -> Result<Contents, Error> {
        let needed = self.images_needed();
        if needed > images.len() {
            return Err(Error::TooFewImages { scenario: self.text(), needed, given: images.len() });
        }
        let placement = match self {
            Name::Extents => Placement::Extents,
            Name::SinglePages => Placement::SinglePages,
            _ => Placement::SameAddress,
        };
        if needed > 0 {
            return Contents::images(&images[..needed]);
        }
        let contents = Contents::made_up(placement, guests, pages);
        Ok(if self == Name::NearEqual { contents } else { contents.varied() })
    }
}
