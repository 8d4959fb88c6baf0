//! Whose requests are answered: those that call this endpoint by a name of its own.
//!
//! A web page may have its name resolve to an address of this machine (DNS rebinding). To the browser page
//! and endpoint are then one origin, and it asks nobody whether the page may read or change anything. But the
//! page's name stays in the request:
//!
//! ```text
//!   Host: 127.0.0.1:9464 | [::1]:9464 | localhost | a name of --allow-host     else 421, whatever is asked
//!   Origin: none, or http(s):// and what Host says                             else 403
//! ```
//!
//! An address cannot be rebound, and a page's own server at an address is another machine.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};

/// The names that the endpoint goes by, besides addresses and `localhost`.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Vec<String>);

/// Why a request is not answered: for programs, and for people.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) &'static str, pub(super) String);

impl Names {
    pub(super) fn new(allowed: &[String]) -> Names {
        Names(allowed.to_vec())
    }

    /// Refuses a request that is meant for somebody else, or comes from somebody else's page.
    pub(super) fn check(&self, request: &Parts) -> Result<(), Refusal> {
        let bad = |why| Refusal(StatusCode::BAD_REQUEST, "bad_host", format!("Host: {why}; give one"));
        let host = only(&request.headers, header::HOST).map_err(bad)?.ok_or_else(|| bad("there is none"))?;
        // A target in full (`GET http://name/ HTTP/1.1`) goes before the header (RFC 9112, 3.2.2).
        let target = request.uri.authority().map(Authority::as_str);
        if let Some(stranger) = [Some(host), target].into_iter().flatten().find(|name| !self.is_ours(name)) {
            let message =
                format!("Host: {stranger:?} is no name of ours; ask by an address or localhost, or give --allow-host");
            return Err(Refusal(StatusCode::MISDIRECTED_REQUEST, "not_our_host", message));
        }
        let ours = match only(&request.headers, header::ORIGIN) {
            Ok(None) => true,
            Ok(Some(origin)) => ["http://", "https://"]
                .iter()
                .any(|scheme| origin.strip_prefix(scheme).is_some_and(|origin| origin.eq_ignore_ascii_case(host))),
            Err(_) => false,
        };
        let message = || format!("Origin: only pages of http://{host} may ask, and there is none");
        if ours { Ok(()) } else { Err(Refusal(StatusCode::FORBIDDEN, "not_our_origin", message())) }
    }

    /// Whether this is a host of ours, with a port or without.
    fn is_ours(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let host = authority.host();
        // The parser takes `[::1].evil.example` and `user@host`, too.
        let Some(port) = authority.as_str().strip_prefix(host) else { return false };
        let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        if !(port.is_empty() || port.strip_prefix(':').is_some_and(digits)) {
            return false;
        }
        let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_address = v6.map_or_else(|| host.parse::<Ipv4Addr>().is_ok(), |host| host.parse::<Ipv6Addr>().is_ok());
        let named = ["localhost"].into_iter().chain(self.0.iter().map(String::as_str));
        is_address || { named }.any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// A header that may be there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, &'static str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err("there are several"),
        (first, _) => first.map(|value| value.to_str().map_err(|_| "it is no name")).transpose(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn answer(target: &str, headers: &[(&str, &str)]) -> u16 {
        let names = Names::new(&["ballast.example".into()]);
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        names.check(&parts).map_or_else(|Refusal(status, ..)| status.as_u16(), |()| 200)
    }

    #[test]
    fn addresses_localhost_and_allowed_names_are_ours_and_nothing_else_is() {
        for host in [
            "127.0.0.1:9464",
            "10.1.2.3",
            "[::1]:9464",
            "localhost",
            "LocalHost:9464",
            "ballast.example",
            "Ballast.Example:1",
        ] {
            assert_eq!(answer("/metrics", &[("Host", host)]), 200, "{host}");
        }
        for host in [
            "evil.example:9464",
            "localhost.evil.example",
            "x.ballast.example",
            "127.0.0.1@evil.example",
            "evil.example@127.0.0.1",
            "127.0.0.1@127.0.0.1",
            "[::1].evil.example:9464",
            "[::1]evil.example",
            "127.0.0.1.evil.example",
            "2130706433",
            "::1",
            "",
        ] {
            assert_eq!(answer("/metrics", &[("Host", host)]), 421, "{host}");
        }
        assert_eq!(answer("/metrics", &[]), 400);
        assert_eq!(answer("/metrics", &[("Host", "localhost"), ("Host", "evil.example")]), 400);
        assert_eq!(answer("http://evil.example/metrics", &[("Host", "localhost")]), 421);
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let from = |origin| answer("/v1/guests", &[("Host", "127.0.0.1:9464"), ("Origin", origin)]);
        assert_eq!((from("http://127.0.0.1:9464"), from("https://127.0.0.1:9464")), (200, 200));
        for origin in
            ["http://127.0.0.1", "http://127.0.0.1:94640", "http://evil.example:9464", "null", "", "127.0.0.1:9464"]
        {
            assert_eq!(from(origin), 403, "{origin}");
        }
        let twice = [("Host", "localhost"), ("Origin", "http://localhost"), ("Origin", "http://evil.example")];
        assert_eq!(answer("/v1/guests", &twice), 403);
    }
}
