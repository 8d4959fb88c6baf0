//! The configuration space (5.5.4): four `le32`, of which two are the driver's.
//!
//! ```text
//!   0  num_pages               the host's wish
//!   4  actual                  the driver's, at any time
//!   8  free_page_hint_cmd_id   the device's, if FREE_PAGE_HINT was agreed on
//!  12  poison_val              the driver's until DRIVER_OK, if PAGE_POISON was agreed on
//! ```

use std::ops::Range;

use wire::balloon::{CONFIG_ACTUAL, CONFIG_BYTES, CONFIG_FREE_PAGE_HINT_CMD_ID, CONFIG_NUM_PAGES, CONFIG_POISON_VAL};

const FIELD_BYTES: usize = size_of::<u32>();

/// The fields as the driver sees them now.
pub(crate) struct Config {
    pub(crate) num_pages: u32,
    pub(crate) actual: [u8; FIELD_BYTES],
    pub(crate) free_page_hint_cmd_id: u32,
    pub(crate) poison_val: [u8; FIELD_BYTES],
}

impl Config {
    /// Fills `data` from `offset` on; what lies behind the fields reads 0.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; CONFIG_BYTES as usize];
        for (field, value) in [
            (CONFIG_NUM_PAGES, self.num_pages.to_le_bytes()),
            (CONFIG_ACTUAL, self.actual),
            (CONFIG_FREE_PAGE_HINT_CMD_ID, self.free_page_hint_cmd_id.to_le_bytes()),
            (CONFIG_POISON_VAL, self.poison_val),
        ] {
            config[field as usize..][..FIELD_BYTES].copy_from_slice(&value);
        }
        let rest = usize::try_from(offset).ok().and_then(|start| config.get(start..)).unwrap_or_default();
        let present = rest.len().min(data.len());
        data.fill(0);
        data[..present].copy_from_slice(&rest[..present]);
    }
}

/// A field that the driver may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// `actual`.
    Actual,
    /// `poison_val`.
    PoisonVal,
}

/// Which bytes of which field a write is for; none if it is for anything else.
pub(crate) fn written(offset: u64, bytes: usize) -> Option<(Field, Range<usize>)> {
    [(Field::Actual, CONFIG_ACTUAL), (Field::PoisonVal, CONFIG_POISON_VAL)].into_iter().find_map(|(field, at)| {
        let start = usize::try_from(offset.checked_sub(at)?).ok()?;
        let end = start.checked_add(bytes)?;
        (end <= FIELD_BYTES && start < end).then_some((field, start..end))
    })
}
