//! Whether a user may come in who has to say who it is.
//!
//! Owns the decision, its count and what the log is told of it; `config` knows the users, `guesses` who has
//! tried too often, and the fronts how each protocol asks and answers.

use std::{net::IpAddr, time::Duration};

use log::{debug, info};

use super::Server;
use crate::{
    clock::Now,
    config::{Kind, Users},
    http::{Presented, Request},
};

/// Why a user does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Denied {
    /// A name and a password are missing, or wrong: to be asked for, with this status in HTTP.
    Ask(u16),
    /// Too many were wrong: to come back after this time.
    Wait(Duration),
    /// They are there twice.
    Ambiguous,
}

impl Server {
    /// Whether the request's user may come in. `Ok` for everybody where the proxy has no users; else the
    /// field that was looked at has done its work, and is for nobody else.
    pub(super) fn authorise(
        &mut self,
        proxy: u32,
        address: IpAddr,
        request: &mut Request<'_>,
        now: Now,
    ) -> Result<(), Denied> {
        let Some(found) = self.proxies.find(proxy) else {
            return Ok(());
        };
        let Some(users) = found.options.users.clone() else {
            return Ok(());
        };
        let (field, ask) = match found.spec.kind {
            Kind::Forward => ("proxy-authorization", Denied::Ask(407)),
            _ => ("authorization", Denied::Ask(401)),
        };
        match request.presented(field) {
            // Nobody has guessed anything: most programs ask first what is wanted.
            Presented::Nothing | Presented::Other => Err(ask),
            Presented::Twice => Err(Denied::Ambiguous),
            Presented::Credentials(credentials) => {
                let (name, password) = (credentials.name(), credentials.password());
                match self.verify(proxy, &users, address, name, password, now) {
                    Verdict::Right => {
                        if ask == Denied::Ask(401) {
                            request.authorized_here();
                        }
                        Ok(())
                    }
                    Verdict::Wrong => Err(ask),
                    Verdict::Wait(wait) => Err(Denied::Wait(wait)),
                }
            }
        }
    }

    /// Checks a password, or does not even look at it.
    pub(super) fn verify(
        &mut self,
        proxy: u32,
        users: &Users,
        address: IpAddr,
        name: &[u8],
        password: &[u8],
        now: Now,
    ) -> Verdict {
        let Some(found) = self.proxies.find_mut(proxy) else {
            return Verdict::Wrong;
        };
        // Whoever is behind other proxies has their address, and is theirs to slow down: one who guesses
        // must not shut out all the others.
        let of_proxies = found.options.trust_forwarded;
        if !of_proxies && let Some(wait) = self.guesses.wait(address, now.instant) {
            if let Some(total) = found.denied.count(now.instant) {
                info!(
                    proxy_id:% = found.id, peer:% = address;
                    "proxy {}: too many wrong passwords from {address}, {total} denied so far",
                    found.id
                );
            }
            return Verdict::Wait(wait);
        }
        if users.verify(name, password) {
            return Verdict::Right;
        }
        if !of_proxies {
            self.guesses.count(address, now.instant);
        }
        let name = users.known(name).unwrap_or("an unknown name");
        debug!(
            "proxy {}: wrong password for {name} from {address}",
            found.id
        );
        if let Some(total) = found.denied.count(now.instant) {
            info!(
                proxy_id:% = found.id, peer:% = address;
                "proxy {}: wrong password for {name} from {address}, {total} denied so far",
                found.id
            );
        }
        Verdict::Wrong
    }
}

/// What a name and a password are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// They were not looked at: too many were wrong. To come back after this time.
    Wait(Duration),
}
