//! What the host orders of a guest while it runs, other than to run, pause and end.

use control::{Reclaim, Round, Starved};
use pager::PAGE_BYTES;

use super::Machine;
use crate::{devices::virtio_mmio::BalloonDevice, memory::GuestPages};

impl Machine {
    /// A new allocation and balloon request, bytes, and what a page costs that the kernel has swapped out, in
    /// parts of a page as in [`control::WHOLE_PAGE_PRICE`].
    pub fn allocate(&self, allocation_bytes: u64, balloon_bytes: u64, kernel_page_price: u16) {
        self.memory.set_kernel_price(kernel_page_price);
        self.memory.set_allocation(allocation_bytes);
        if let Some(balloon) = &self.devices.balloon {
            let pages = u32::try_from(balloon_bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX);
            balloon.transport().configure(|device| device.balloon().set_requested_pages(pages));
        }
    }

    /// What becomes of the guest if it finds no page.
    pub fn set_starved(&self, starved: Starved) {
        self.memory.set_starved(starved);
    }

    /// When pages are evicted from now on.
    pub fn set_reclaim(&self, when: Reclaim) {
        self.memory.set_proactive(when == Reclaim::Proactively);
    }

    /// Has the guest say how it is this often from now on, ms; 0 for never.
    pub fn set_statistics_interval_ms(&self, interval_ms: u64) {
        if let Some(balloon) = &self.devices.balloon {
            balloon.device().balloon().set_statistics_interval_ms(interval_ms);
        }
    }

    /// Has the guest say how it is, if it is time; the answer is in a later status.
    pub fn poll_statistics(&self) {
        if let Some(balloon) = &self.devices.balloon
            && balloon.device().balloon().poll_statistics(self.start.elapsed().as_millis() as u64)
        {
            balloon.notify(BalloonDevice::<GuestPages>::STATISTICS_INDEX);
        }
    }

    /// Has the guest's active memory sampled with this period from now on, ms; 0 for never.
    pub fn set_sample_period_ms(&self, period_ms: u64) {
        self.memory.set_sample_period_ms(period_ms);
    }

    /// How long pages that the guest reports free are left alone, ms, and how many are taken at a time.
    pub fn set_report_pace(&self, delay_ms: u64, pages_max: u32) {
        self.reports.set(delay_ms, pages_max);
    }

    /// Asks the guest which pages it does not need, or ends asking.
    pub fn hint_pages(&self, round: Round) {
        let Some(balloon) = &self.devices.balloon else { return };
        let (transport, device) = (balloon.transport(), balloon.device().balloon());
        match round {
            Round::Begin => match device.begin_hinting() {
                Ok(()) => transport.configure(|device| device.balloon().announce_hinting()),
                // Whoever asks again and again asks in vain, and is not worth a line each time.
                Err(refused) => tracing::debug!("{refused}"),
            },
            Round::End => {
                device.end_hinting();
                transport.configure(|device| device.balloon().announce_done());
            }
        }
    }
}
