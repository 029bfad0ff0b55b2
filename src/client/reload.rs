//! A new configuration, while the client runs.
//!
//! It is taken over whole or not at all. Sessions go on whatever has changed; what may no longer be dialled
//! is not dialled again. No connection that was made by the old rules, and under the old roots, carries
//! anything that it did not carry already: what is parked leaves the pool, what is in use does not come back to
//! it, and what is being dialled is dialled anew.

use log::{info, warn};

use super::{Client, Owner, exposures::Difference, secure::Trust};
use crate::{
    clock::Now,
    config::{ClientConfig, PoolMode},
    journal,
    pool::PoolLimits,
    reactor::{Reactor, net::Net},
    reload::{self, Reload, Watched},
    tunnel::frame::Kind,
};

impl<N: Net> Reload<N, Owner> for Client {
    type Config = ClientConfig;

    const FILES: Owner = Owner::Files;

    fn watched(&mut self) -> Option<&mut Watched<ClientConfig>> {
        self.watched.as_mut().filter(|_| !self.stage.is_ending())
    }

    fn take_over(
        &mut self,
        io: &mut Reactor<N, Owner>,
        config: ClientConfig,
        now: Now,
    ) -> Result<(), String> {
        self.apply(io, config, now)
    }
}

impl Client {
    /// Takes a new configuration over.
    ///
    /// # Errors
    /// It cannot be had, and nothing has changed.
    pub fn apply<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        config: ClientConfig,
        now: Now,
    ) -> Result<(), String> {
        if config.id != self.config.id {
            return Err(format!("a client stays {} until a restart", self.config.id));
        }
        reload::warn_of_kept(&unchangeable(&self.config, &config));
        journal::change(self.config.log, config.log);
        if self.links.present.is_up() && config.server != self.config.server {
            warn!(
                "reload: {} is dialled when this link has ended",
                config.server
            );
        }
        self.tls = Trust::new("--target-ca", config.target_ca.clone(), None);
        self.link_tls = Trust::new("--ca", config.ca.clone(), config.identity.clone());
        io.reserve_descriptors(config.limits.descriptors_reserved);
        let mut parked = Vec::new();
        self.pool
            .set_limits(pool_limits(&config), &mut parked, now.instant);
        // Whom it trusts may have changed, and whom it may dial.
        for key in parked {
            io.close(key);
        }
        let Difference { open, close } = self.exposures.change(&config.expose);
        info!(
            "reload: done, {} proxies asked for, {} closed",
            open.len(),
            close.len()
        );
        if let Some(admin) = &mut self.admin {
            admin.set_config(config.admin.as_ref());
        }
        self.config = config.into();
        self.redial(io, now);
        let can_close = self.closes;
        // What is leaving has closed its listeners.
        if self.links.present.is_up()
            && let Some(tunnel) = self.links.present.tunnel()
        {
            for open in open {
                tunnel.mux.control(Kind::ProxyOpen, &open);
            }
            for close in close {
                if can_close {
                    tunnel.mux.control(Kind::ProxyClose, &close);
                } else {
                    warn!(
                        "proxy {}: this server closes it when the link ends",
                        close.proxy_id
                    );
                }
            }
            self.schedule();
        }
        if !self.links.present.is_up() {
            self.dial_anew(io, now);
        }
        Ok(())
    }

    /// What was tried or waited for was so by the old configuration: this one may be what was wrong with it.
    fn dial_anew<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        let id = &self.config.id;
        info!("link {id}: dialled at once, by the new configuration");
        self.forgo_link(io);
        self.backoff.renew(now.instant);
        self.connect(io, now);
    }
}

/// What is kept parked under this configuration.
pub(super) fn pool_limits(config: &ClientConfig) -> PoolLimits {
    PoolLimits {
        max_idle: match config.pool.mode {
            PoolMode::Safe | PoolMode::Always => config.pool.max_idle,
            PoolMode::Never => 0,
        },
        max_idle_per_target: config.pool.max_idle_per_target,
        idle: config.pool.idle,
        age: config.pool.age,
    }
}

/// What cannot change while the client runs, and whether it is the same.
fn unchangeable(old: &ClientConfig, new: &ClientConfig) -> [(&'static str, bool); 6] {
    [
        ("memory_max", old.memory_max == new.memory_max),
        ("spin", old.spin == new.spin),
        ("admin", reload::is_same_listener(&old.admin, &new.admin)),
        (
            "limits.undelivered",
            old.limits.undelivered == new.limits.undelivered,
        ),
        (
            "pool.max_active_per_target",
            old.pool.max_active_per_target == new.pool.max_active_per_target,
        ),
        (
            "pool.queue_per_target",
            old.pool.queue_per_target == new.pool.queue_per_target,
        ),
    ]
}
