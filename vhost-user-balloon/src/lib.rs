//! The balloon as a device of somebody else's VMM: a vhost-user back end around [`balloon::Balloon`].
//!
//! ```text
//!   front end (QEMU, user-mode Linux, ...)         ballast vhost-user-balloon
//!    | --socket: vhost-user messages --> relay --> backend   features, configuration space
//!    | memory: file descriptors -----------------> memory    PageSink: fallocate(PUNCH_HOLE) over them
//!    | rings in that memory, kick and call ------> worker    turns of work
//!    | <-- back channel: CONFIG_CHANGE ----------- relay
//!                                       --api ---> api       HTTP: asked for, given, statistics
//! ```
//!
//! One guest at a time; when its front end goes, the next may connect. Guest memory is a file that two
//! processes map. So a page that is given up goes by punching a hole in that file, and comes back as zeros
//! when anybody touches it. That cannot be made to wait for a write in progress, as the pager's pages can:
//! **a hint drops nothing here** (a page may have been taken back before the hint is read, and nobody would
//! tell). Hinting is spoken, counted, and ended as it should be.
//!
//! **Never:** a byte outside the regions the front end shared is touched; a reported page changes to anything
//! but the poison value; a front end or a guest ends the process.

#![deny(unsafe_code)]

mod api;
mod backend;
mod error;
mod memory;
mod relay;
mod sys;

use std::convert::Infallible;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use vhost::vhost_user::Listener;
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use crate::backend::{Backend, WAKE_EVENT};

pub use crate::error::Error;

/// What is to be served, and where.
#[derive(Clone, Debug)]
pub struct Config {
    /// Path of the socket that the front end connects to; what is there is replaced.
    pub socket: PathBuf,
    /// Path of the socket with the HTTP interface, if one is wanted; what is there is replaced.
    pub api: Option<PathBuf>,
    /// Memory to ask the guest for, bytes; rounded down to pages.
    pub requested_bytes: u64,
    /// How often to ask the guest for statistics; 0 for never.
    pub statistics_interval: Duration,
}

/// Serves one front end after the other. Returns only when it cannot.
pub fn run(config: Config) -> Result<Infallible, Error> {
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let backend = Arc::new(Backend::new(memory.clone())?);
    backend.set_requested_bytes(config.requested_bytes);
    let interval_ms = u64::try_from(config.statistics_interval.as_millis()).unwrap_or(u64::MAX);
    backend.balloon().set_statistics_interval_ms(interval_ms);
    let listen = |path: &PathBuf, source| Error::Listen { path: path.clone(), source };
    let _ = fs::remove_file(&config.socket);
    let listener = UnixListener::bind(&config.socket).map_err(|source| listen(&config.socket, source))?;
    let api = config.api.as_ref().map(|path| api::bind(path).map_err(|source| listen(path, source))).transpose()?;
    let for_api = backend.clone();
    thread::Builder::new()
        .name("api".into())
        .spawn(move || api::serve(api, for_api))
        .map_err(|source| Error::System { doing: "starting the API's thread", source })?;
    loop {
        let failed = |error: vhost_user_backend::Error| Error::Serve(error.to_string());
        let mut daemon = VhostUserDaemon::new("vhost-user".into(), backend.clone(), memory.clone()).map_err(failed)?;
        for handler in daemon.get_epoll_handlers() {
            handler
                .register_listener(backend.wake_fd(), EventSet::IN, WAKE_EVENT.into())
                .map_err(|source| Error::System { doing: "listening to our own event", source })?;
        }
        let (front, _) = listener.accept().map_err(|source| listen(&config.socket, source))?;
        tracing::info!("a front end has connected");
        let (private, ours) = relay::private_pair(&config.socket).map_err(|source| listen(&config.socket, source))?;
        relay::start(front, ours, backend.channel())
            .map_err(|source| Error::System { doing: "starting to pass messages on", source })?;
        daemon.start(&mut Listener::from(private)).map_err(failed)?;
        if let Err(error) = daemon.wait() {
            // Its fault, not ours: the next one may know better.
            tracing::warn!("the front end broke off: {error}");
        }
        drop(daemon);
        backend.disconnected();
    }
}
