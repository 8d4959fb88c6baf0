//! What requests are answered from, and the figures that are made of it.

use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::response::Response;
use metrics::Snapshot;
use policy::state::HostState;
use wire::balloon::stat::{AVAIL, MEMFREE, MEMTOT};

use super::answer::refuse;
use super::peers::Peers;
use super::scrape::Scrape;
use crate::control::decisions::Decisions;
use crate::control::prices::LeverFigures;
use crate::fleet::accounting::Meter;
use crate::fleet::domains::DomainView;
use crate::fleet::guest::{STATES, View};
use crate::fleet::lives::Fleet;
use crate::request::promises::Promise;
use crate::show::gain::{DomainGain, areas_wanted, unmerged_pages};
use crate::show::totals::Reclaimed;
use crate::tier;

/// What requests are answered from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The guests.
    pub fleet: Arc<Fleet>,
    /// Used memory.
    pub meter: Arc<Meter>,
    /// What policy decided lately.
    pub decisions: Arc<Decisions>,
    /// Held while what is promised is checked and changed: two changes that fit one by one need not fit
    /// together.
    pub changing: Arc<Mutex<()>>,
    /// What other runs know of this one.
    pub promise: Arc<Promise>,
    /// Who is connected.
    pub peers: Arc<Peers>,
    /// The last figures told.
    pub scrape: Arc<Scrape>,
}

impl Sources {
    /// The answer where there is no guest of this name.
    pub fn no_such_guest(&self, name: &str) -> Response {
        let names: Vec<_> = self.fleet.views().into_iter().map(|view| view.name).collect();
        let message = format!("there is no guest {name:?}, but {}", names.join(", "));
        refuse(StatusCode::NOT_FOUND, "no_such_guest", &message)
    }

    fn domains(&self, views: &[View]) -> Vec<metrics::Domain> {
        let domains = self.fleet.domains.views();
        let domain = |(gain, view): (DomainGain, &DomainView)| metrics::Domain {
            name: gain.name,
            guests: gain.guests,
            frames_bytes: gain.frames_bytes,
            idle_frames_bytes: gain.idle_frames_bytes,
            gain_zero_bytes: gain.gain_bytes.zero,
            gain_within_bytes: gain.gain_bytes.within_guest,
            gain_across_bytes: gain.gain_bytes.across_guests,
            cow_full_bytes: gain.cow_full_bytes,
            cow_expected_bytes: gain.cow_expected_bytes,
            published_total: view.figures.published_total,
            retired_total: view.figures.retired_total,
            refused_total: view.figures.refused_total,
            declined_total: view.figures.declined_total,
        };
        DomainGain::of(views, &domains).into_iter().zip(&domains).map(domain).collect()
    }

    /// All figures, as they are now.
    pub fn snapshot(&self) -> Snapshot {
        let views = self.fleet.views();
        let frames_bytes = self.fleet.frames_bytes();
        let living = views.iter().enumerate().filter(|(_, view)| !view.has_ended());
        let guests = living.map(|(number, view)| {
            let levers = self.decisions.levers(number).into_iter().flatten();
            let page_ns = |one: LeverFigures| (one.lever.name(), (one.price.per_page_us() * 1e3) as u64);
            let available = |one: LeverFigures| Some((one.lever.name(), one.available_bytes?));
            let tier = self.fleet.tier.as_ref().and_then(|tier| tier.figures(number));
            metrics::GuestFigures {
                name: view.name.clone(),
                allocation_bytes: view.grant.allocation_bytes,
                unresponsive: view.unresponsive,
                unmerged_pages: unmerged_pages(view).to_vec(),
                alias_vmas_wanted: areas_wanted(view),
                lever_page_ns: levers.clone().map(page_ns).collect(),
                lever_available_bytes: levers.filter_map(available).collect(),
                kernel_tier_stored_bytes: tier.map(|figures| figures.swapped_bytes),
                kernel_tier_memory_bytes: tier.map(|figures| figures.zram_bytes),
                limit_bytes: tier.map(|figures| figures.limit_bytes),
                charged_bytes: tier.map(|figures| figures.charged_bytes),
                limit_meetings: tier.map(limit_meetings).unwrap_or_default(),
                up: view.freshness.is_up(),
                start_time_seconds: view.freshness.started_seconds(),
                restarts_total: view.past.restarts,
                status_age_seconds: view.freshness.status_age.map(|age| age.as_secs_f64()),
                own_total_bytes: view.status.balloon.statistic(MEMTOT),
                own_free_bytes: view.status.balloon.statistic(MEMFREE),
                own_available_bytes: view.status.balloon.statistic(AVAIL),
                own_age_seconds: view.freshness.own_age.map(|age| age.as_secs_f64()),
                status: view.status.clone(),
            }
        });
        let guests: Vec<_> = guests.collect();
        let situation = self.decisions.situation();
        let device = self.fleet.tier.as_ref().map(|tier| tier.view());
        let in_state = |name| (name, views.iter().filter(|view| view.state() == name).count() as u64);
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            host: metrics::Host {
                budget_bytes: self.meter.budget.bytes(),
                used_bytes: self.meter.used_bytes(),
                peak_used_bytes: self.meter.peak_used_bytes(),
                promised_bytes: guests.iter().map(|guest| guest.status.memory_bytes).sum(),
                frames_bytes,
                reclaimed_bytes: Reclaimed::of(&views, frames_bytes).by_mechanism().to_vec(),
                kernel_tier_bytes: device.map(room).unwrap_or_default(),
                kernel_tier_memory_bytes: device.map(memory).unwrap_or_default(),
                guests: STATES.map(in_state).to_vec(),
                state: HostState::ALL.map(|one| (one.name(), u64::from(one == situation.state))).to_vec(),
                usable_bytes: situation.usable_bytes,
                short_bytes: situation.short_bytes(),
                decisions: self.decisions.counts(),
                connections: self.peers.endings(),
            },
            domains: self.domains(&views),
            guests,
        }
    }
}

fn limit_meetings(figures: tier::Figures) -> Vec<(&'static str, u64)> {
    vec![("made_room", figures.hits_total), ("waited", figures.waits_total)]
}

fn room(device: tier::DeviceView) -> Vec<(&'static str, u64)> {
    vec![("used", device.stored_bytes), ("free", device.room_bytes)]
}

fn memory(device: tier::DeviceView) -> Vec<(&'static str, u64)> {
    vec![("guests", device.guests_bytes), ("others", device.others_bytes)]
}
