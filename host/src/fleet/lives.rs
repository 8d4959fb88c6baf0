//! The guests of a run, their processes, and who is told what.
//!
//! ```text
//!   VMM process          tasks of its guest                            everybody
//!     socket  --frames--> attend: Ready, Status, Finished ----------->  Guest (latest word)
//!                                 Merge --> Domain --> answers ------>  outboxes
//!     socket <--frames--- send_all <------ outbox <-------------------  grant, run, stop, answers
//!     stderr  --lines---> listen ------------------------------------>  log, last words
//!     exit    ----------> attend: reap, vmm_gone --------------------->  Guest::Ended, `changed`
//!                              |
//!                              +--- to be started anew: another VMM, with its own number, in the same place
//! ```
//!
//! A VMM that breaks the protocol, goes silent or dies ends alone: its process is killed and reaped, its
//! holds on frames are dropped, and only then does its memory count as free.
//!
//! VMMs ask the kernel to be killed when the *thread* that started them dies, so [`Fleet::launch`] must be
//! called from a thread that lives as long as the host: the runtime's main thread or a worker, never a
//! blocking-pool thread.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::{MergeAnswer, ToHost, ToVmm};
use dedup::VmmId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::process::{Child, ChildStderr};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::clock::thread_cpu_time;
use crate::config::RunConfig;
use crate::error::Error;
use crate::fleet::domains::{Domains, Membership};
use crate::fleet::guest::{Guest, View};
use crate::fleet::orders::Grant;
use crate::fleet::socket;
use crate::fleet::start::{Life, start, start_message};
use crate::fleet::throttle::{Throttle, VMM_SHARE};
use crate::plan::PlannedGuest;
use crate::request::descriptors::Patience;
use crate::tier::Tier;

/// How long a VMM that closed its socket may take to exit: it frees the guest's memory meanwhile, and 32 of
/// them may share two CPUs.
const EXIT_GRACE: Duration = Duration::from_secs(15);
/// How long a VMM may leave the frame store without an answer. A scanner answers between two batches, within
/// a millisecond of CPU time, but 32 of them may share two CPUs with their guests.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Longest line taken from a VMM's standard error in one piece, bytes.
const LINE_BYTES_MAX: u64 = 1024;

/// All guests of a run.
#[derive(Debug)]
pub struct Fleet {
    /// In order of their numbers.
    pub guests: Vec<Guest>,
    /// The sharing domains they are in.
    pub domains: Domains,
    changed: watch::Sender<()>,
    /// What patience with them is measured by.
    pub clock: Arc<Clock>,
    /// Where private pages may go by the kernel's hands; it goes when the last guest has.
    pub tier: Option<Arc<Tier>>,
    /// What the run was asked for.
    pub config: RunConfig,
}

impl Fleet {
    /// Starts a VMM for each planned guest and has it build the guest. Nothing runs yet.
    pub async fn launch(
        config: &RunConfig,
        planned: &[PlannedGuest],
        grants: &[Grant],
        tier: Option<Tier>,
    ) -> Result<Arc<Fleet>, Error> {
        let domains = Domains::default();
        let clock = Arc::new(Clock::new(Instant::now()));
        let mut guests = Vec::with_capacity(planned.len());
        let mut lives = Vec::with_capacity(planned.len());
        for (number, (plan, &grant)) in planned.iter().zip(grants).enumerate() {
            let largest = planned.iter().filter(|other| other.domain == plan.domain).map(PlannedGuest::pages).max();
            let home_frames = largest.unwrap_or_default();
            let id = VmmId::first(number as u32);
            let mut patience = Patience::default();
            let (mut link, life) = loop {
                match start(config, plan, &domains, home_frames, id) {
                    Ok(started) => break started,
                    Err(error) => sleep(patience.after(&error).ok_or(error)?).await,
                }
            };
            preload(config, &planned[..=number], &life.membership)?;
            let domain = life.membership.domain();
            let kernel_tier = admit(tier.as_ref(), number, &life);
            link.begin(start_message(config, planned.len(), number, plan, grant, domain, kernel_tier), grant);
            guests.push(Guest::new(plan.clone(), link, grant, Arc::clone(&clock)));
            lives.push(life);
        }
        let (changed, tier, config) = (watch::Sender::new(()), tier.map(Arc::new), config.clone());
        let fleet = Arc::new(Fleet { guests, domains, changed, clock, tier, config });
        for (number, life) in lives.into_iter().enumerate() {
            tokio::spawn(Arc::clone(&fleet).attend(number, life));
        }
        Ok(fleet)
    }

    /// Completes when all guests fulfil a condition that depends on their phases.
    pub async fn until_all(&self, condition: impl Fn(&Guest) -> bool) {
        let mut changes = self.changed.subscribe();
        while !self.guests.iter().all(&condition) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// All guests as they are now.
    pub fn views(&self) -> Vec<View> {
        self.guests.iter().map(Guest::view).collect()
    }

    /// Memory of all frame stores, bytes.
    pub fn frames_bytes(&self) -> u64 {
        self.domains.allocated_bytes()
    }

    /// Brings answers of a domain to the VMMs they are for.
    pub fn deliver(&self, answers: Vec<(VmmId, MergeAnswer)>) {
        for (id, answer) in answers {
            if let Some(guest) = self.guests.get(id.guest as usize) {
                guest.send_to(id, ToVmm::Merge(answer));
            }
        }
    }

    /// Kills VMMs that leave the frame store's questions unanswered: the domain would release nothing until
    /// they end.
    pub fn kill_silent(&self, now: Instant) {
        for id in self.domains.overdue(now, ANSWER_MAX) {
            if let Some(guest) = self.guest_of(id).filter(|guest| !guest.has_ended()) {
                guest.kill(format!("did not answer the frame store for {} s", ANSWER_MAX.as_secs()));
            }
        }
    }

    /// The guest whose VMM has this number now.
    fn guest_of(&self, id: VmmId) -> Option<&Guest> {
        self.guests.get(id.guest as usize).filter(|guest| guest.vmm() == id)
    }

    /// Kills every VMM that is left.
    pub fn kill_all(&self, reason: &str) {
        for guest in self.guests.iter().filter(|guest| !guest.has_ended()) {
            guest.kill(reason);
        }
    }

    /// A guest's lives, one after the other.
    async fn attend(self: Arc<Self>, number: usize, first: Life) {
        let guest = &self.guests[number];
        let mut life = first;
        loop {
            let exit = self.live(guest, life).await;
            let again = guest.on_reaped(exit);
            self.changed.send_replace(());
            if !again {
                return;
            }
            life = match self.start_anew_patiently(number).await {
                Ok(life) => life,
                Err(error) => {
                    guest.on_lost(error.to_string());
                    self.changed.send_replace(());
                    return;
                }
            };
        }
    }

    /// Starts another VMM for a guest; tries again while there are no descriptors for it.
    async fn start_anew_patiently(&self, number: usize) -> Result<Life, Error> {
        let guest = &self.guests[number];
        let mut patience = Patience::default();
        loop {
            let error = match self.start_anew(number) {
                Ok(life) => return Ok(life),
                Err(error) => error,
            };
            let Some(pause) = patience.after(&error) else { return Err(error) };
            tracing::warn!(guest = guest.plan.name, %error, again_in = ?pause, "not started anew");
            guest.await_start();
            tokio::select! {
                () = sleep(pause) => {}
                () = guest.kill_wanted() => return Err(error),
            }
        }
    }

    /// Starts another VMM for a guest whose last one is reaped, with the grant it had.
    fn start_anew(&self, number: usize) -> Result<Life, Error> {
        let guest = &self.guests[number];
        let plan = &guest.plan;
        let id = guest.vmm().next();
        let members = self.guests.iter().filter(|other| other.plan.domain == plan.domain);
        let home_frames = members.map(|other| other.plan.pages()).max().unwrap_or_default();
        // From its joining on, the domain asks it as it asks all others, and waits for its answers.
        guest.expect(id);
        let (link, life) = start(&self.config, plan, &self.domains, home_frames, id)?;
        let domain = life.membership.domain();
        let (config, guests) = (&self.config, self.guests.len());
        let kernel_tier = admit(self.tier.as_deref(), number, &life);
        guest.start_anew(link, |grant| start_message(config, guests, number, plan, grant, domain, kernel_tier));
        Ok(life)
    }

    /// One life of a guest, from its first message until its process is reaped.
    async fn live(&self, guest: &Guest, life: Life) -> io::Result<ExitStatus> {
        let Life { mut child, mut reader, membership } = life;
        let stderr = child.stderr.take();
        let words = async {
            if let Some(stderr) = stderr {
                listen(guest, stderr).await
            }
        };
        let life = async {
            let orderly = async {
                if let Err(broken) = self.converse(guest, &membership, &mut reader).await {
                    guest.kill(broken);
                    std::future::pending::<()>().await;
                }
                let exit = self.clock.timeout(EXIT_GRACE, child.wait()).await;
                if exit.is_none() {
                    guest.kill(format!("did not exit within {} s", EXIT_GRACE.as_secs()));
                }
                exit
            };
            let exit = tokio::select! {
                exit = orderly => exit,
                () = guest.kill_wanted() => None,
            };
            match exit {
                Some(exit) => exit,
                None => kill(&mut child).await,
            }
        };
        let (exit, ()) = tokio::join!(life, words);
        self.deliver(self.domains.leave(membership));
        exit
    }

    /// Takes messages until the VMM closes its socket; an error says how it broke the protocol.
    async fn converse(&self, guest: &Guest, membership: &Membership, reader: &mut OwnedReadHalf) -> Result<(), String> {
        let mut body = Vec::new();
        let mut throttle = Throttle::new(VMM_SHARE, Instant::now());
        loop {
            match socket::receive(reader, &mut body).await {
                Ok(true) => {}
                Ok(false) | Err(control::Error::Io(_)) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
            let begun = thread_cpu_time();
            self.obey(guest, membership, &body)?;
            // No await since: this is the same thread.
            if let Some(pause) = throttle.spent(thread_cpu_time().saturating_sub(begun), Instant::now()) {
                sleep(pause).await;
            }
        }
    }

    /// Takes one message; an error says how it breaks the protocol.
    fn obey(&self, guest: &Guest, membership: &Membership, body: &[u8]) -> Result<(), String> {
        match control::decode(body).map_err(|error| error.to_string())? {
            ToHost::Ready => {
                membership.loaded();
                guest.on_ready();
                if guest.view().past.restarts > 0 {
                    guest.run();
                }
                self.changed.send_replace(());
            }
            ToHost::Status(status) => guest.on_status(*status),
            ToHost::Merge(request) => {
                self.deliver(membership.handle(request).map_err(|error| error.to_string())?);
            }
            ToHost::Finished { result, status } => guest.on_finished(result, *status),
        }
        Ok(())
    }
}

/// Publishes what the last of these guests is going to load, if it is the first of its domain.
fn preload(config: &RunConfig, planned: &[PlannedGuest], membership: &Membership) -> Result<(), Error> {
    let Some((plan, others)) = planned.split_last() else { return Ok(()) };
    let Some(linux) = plan.linux.as_ref().filter(|linux| linux.preload_bytes > 0) else { return Ok(()) };
    membership.preload(&[]);
    if others.iter().any(|other| other.domain == plan.domain) {
        return Ok(());
    }
    linux.each_load(config.vcpus, plan.memory_bytes, |pages| membership.preload(pages))
}

/// Has a VMM that was just started live in its guest's group; whether it may use the kernel tier.
fn admit(tier: Option<&Tier>, number: usize, life: &Life) -> bool {
    tier.zip(life.child.id()).is_some_and(|(tier, pid)| tier.admit(number, pid))
}

async fn kill(child: &mut Child) -> io::Result<ExitStatus> {
    child.start_kill()?;
    child.wait().await
}

/// Passes a VMM's standard error on, line by line, until it is closed.
async fn listen(guest: &Guest, stderr: ChildStderr) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut stderr).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => guest.on_words(String::from_utf8_lossy(&line).trim_end()),
        }
    }
}
