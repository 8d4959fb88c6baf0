//! `ballast vhost-user-balloon`: the balloon device of another VMM's guest.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use host::ByteCount;

use super::values::duration;

pub(super) const EXAMPLES: &str = "\
Examples:
  ballast vhost-user-balloon --socket /run/balloon.sock --api /run/balloon-api.sock
  linux.uml mem=256M virtio_uml.device=/run/balloon.sock:5 ...
  curl --unix-socket /run/balloon-api.sock http://balloon/v1/balloon
  curl --unix-socket /run/balloon-api.sock -X PATCH -H 'Content-Type: application/json' \\
    -d '{\"requested_bytes\": 67108864}' http://balloon/v1/balloon";

#[derive(Debug, Args)]
pub struct VhostUserBalloon {
    /// Where the front end (the VMM) connects
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Where the balloon is watched and set: HTTP on a unix socket
    #[arg(long, value_name = "PATH")]
    api: Option<PathBuf>,
    /// Memory to ask the guest for from the start
    #[arg(long, value_name = "SIZE", default_value = "0", allow_hyphen_values = true)]
    balloon: ByteCount,
    /// How often to ask the guest for statistics; 0s for never
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    statistics_interval: Duration,
}

impl VhostUserBalloon {
    /// The device that was asked for.
    pub fn into_config(self) -> vhost_user_balloon::Config {
        vhost_user_balloon::Config {
            socket: self.socket,
            api: self.api,
            requested_bytes: self.balloon.0,
            statistics_interval: self.statistics_interval,
        }
    }
}
