//! A new configuration, while the server runs.
//!
//! It is taken over whole or not at all. Sessions go on whatever has changed, but for those of clients whose
//! token is another now: who was let in by the old one has to prove that it knows the new one.

use log::info;

use super::{Owner, Server, secure::Acceptor};
use crate::{
    clock::Now,
    config::ServerConfig,
    journal,
    reactor::{Reactor, net::Net},
    reload::{self, Reload, Watched},
    tunnel::{control::Reason, link::CloseReason},
};

impl<N: Net> Reload<N, Owner> for Server {
    type Config = ServerConfig;

    const FILES: Owner = Owner::Files;

    fn watched(&mut self) -> Option<&mut Watched<ServerConfig>> {
        self.watched.as_mut().filter(|_| !self.stage.is_ending())
    }

    fn take_over(
        &mut self,
        io: &mut Reactor<N, Owner>,
        config: ServerConfig,
        now: Now,
    ) -> Result<(), String> {
        self.apply(io, config, now)
    }
}

impl Server {
    /// Takes a new configuration over.
    ///
    /// # Errors
    /// It cannot be had, and nothing has changed.
    pub fn apply<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        config: ServerConfig,
        now: Now,
    ) -> Result<(), String> {
        let changes = self.proxies.reconfigure(&config, &self.links, io, now)?;
        for proxy in &changes.closed {
            self.close_fronts_of(io, *proxy);
        }
        for proxy in self.rates.proxies() {
            self.rate_of(proxy, now);
        }
        reload::warn_of_kept(&unchangeable(&self.config, &config));
        journal::change(self.config.log, config.log);
        io.reserve_descriptors(config.limits.descriptors_reserved);
        self.tls = Acceptor::new(config.identities.clone(), config.client_ca.clone());
        self.fronts.admission.set_limits(&config.limits);
        self.link_sources
            .set_limits(0, config.limits.rate_per_source);
        self.links.handshakes.set_max(config.limits.handshakes);
        self.securing.set_max(config.limits.user_handshakes);
        if let Some(admin) = &mut self.admin {
            admin.set_config(config.admin.as_ref());
        }
        let old = std::mem::replace(&mut self.config, config.into());
        for (client, link) in self.links.of_clients() {
            let [before, after] = [&old, &self.config].map(|config| config.grant(&client).proof);
            if !before.is_same(&after) {
                let why = "the token of this client has changed";
                self.close_link(io, link, CloseReason::Done, why, Reason::LinkLost);
            }
        }
        info!(
            "reload: done, {} proxies opened, {} closed, {} certificates",
            changes.opened,
            changes.closed.len(),
            self.tls.len()
        );
        Ok(())
    }
}

/// What cannot change while the server runs, and whether it is the same.
fn unchangeable(old: &ServerConfig, new: &ServerConfig) -> [(&'static str, bool); 6] {
    [
        ("listen", old.listen == new.listen),
        ("memory_max", old.memory_max == new.memory_max),
        ("spin", old.spin == new.spin),
        ("admin", reload::is_same_listener(&old.admin, &new.admin)),
        (
            "limits.undelivered",
            old.limits.undelivered == new.limits.undelivered,
        ),
        (
            "limits.pipelined",
            old.limits.pipelined == new.limits.pipelined,
        ),
    ]
}
