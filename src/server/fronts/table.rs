//! All fronts, by their slots, each with the place that its user has taken.
//!
//! A front comes and goes through here alone, so that its place is given back when it goes, however that
//! comes about.

use std::{
    net::IpAddr,
    ops::{Index, IndexMut},
    time::Instant,
};

use log::info;
use slab::Slab;

use super::{Front, as_v6};
use crate::{
    config::{ClientId, ServerLimits},
    key::Key,
    server::admission::{Admission, Full},
    tunnel::ids::{ProxyId, UserId},
};

/// The fronts, and who may have one.
pub(in crate::server) struct Fronts {
    slab: Slab<Front>,
    pub admission: Admission,
}

/// What is still of interest of a front that is gone.
pub(in crate::server) struct Gone {
    pub key: Key,
    pub proxy: u32,
    pub user: UserId,
}

impl Fronts {
    pub fn new(limits: &ServerLimits, now: Instant) -> Fronts {
        Fronts {
            slab: Slab::new(),
            admission: Admission::new(limits, now),
        }
    }

    /// Takes a user in, who has a place.
    pub fn insert(&mut self, front: Front) -> u32 {
        self.slab.insert(front) as u32
    }

    /// It is known now where a user comes from.
    ///
    /// # Errors
    /// Its source has had its share: the user is to go.
    pub fn comes_from(&mut self, front: u32, address: IpAddr, now: Instant) -> Result<(), Full> {
        let front = &mut self.slab[front as usize];
        front.address = as_v6(address);
        self.admission.seat(&mut front.place, address, now)
    }

    /// The user of a front is meant for another proxy than the one that it came to.
    ///
    /// # Errors
    /// That one has no place for it.
    pub fn turn(
        &mut self,
        front: u32,
        proxy: u32,
        client: &ClientId,
        proxy_max: usize,
    ) -> Result<(), Full> {
        let front = &mut self.slab[front as usize];
        self.admission
            .turn(&mut front.place, proxy, client, proxy_max)?;
        front.proxy = proxy;
        Ok(())
    }

    /// There was no place for a user of this proxy.
    pub fn refused(&mut self, proxy: &ProxyId, address: IpAddr, full: Full, now: Instant) {
        if let Some(total) = self.admission.refused(full, now) {
            let address = address.to_canonical();
            info!(proxy_id:% = proxy, peer:% = address; "proxy {proxy}: refused a user from {address}, {full}, {total} so far");
        }
    }

    /// Lets a user go, whose socket is the caller's to close.
    pub fn remove(&mut self, front: usize) -> Gone {
        let Front {
            key,
            proxy,
            user,
            place,
            ..
        } = self.slab.remove(front);
        self.admission.release(place);
        Gone { key, proxy, user }
    }

    /// Lets all go; their sockets.
    pub fn remove_all(&mut self) -> Vec<Key> {
        let Fronts { slab, admission } = self;
        slab.drain()
            .map(|front| {
                admission.release(front.place);
                front.key
            })
            .collect()
    }

    pub fn get(&self, front: usize) -> Option<&Front> {
        self.slab.get(front)
    }

    pub fn get_mut(&mut self, front: usize) -> Option<&mut Front> {
        self.slab.get_mut(front)
    }

    pub fn contains(&self, front: usize) -> bool {
        self.slab.contains(front)
    }

    pub fn iter(&self) -> slab::Iter<'_, Front> {
        self.slab.iter()
    }

    pub fn len(&self) -> usize {
        self.slab.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Gives a burst's memory back when it is over.
    pub fn trim(&mut self) {
        if self.slab.is_empty() && self.slab.capacity() > TRIM_MIN {
            self.slab = Slab::new();
        }
    }

    /// Panics where the invariants do not hold.
    pub fn check_invariants(&self) {
        let places = self.slab.iter().map(|(_, front)| &front.place);
        self.admission.check_invariants(places);
    }
}

impl Index<usize> for Fronts {
    type Output = Front;

    fn index(&self, front: usize) -> &Front {
        &self.slab[front]
    }
}

impl IndexMut<usize> for Fronts {
    fn index_mut(&mut self, front: usize) -> &mut Front {
        &mut self.slab[front]
    }
}

/// A slab that a burst has filled is given back when it is empty again, if it was larger than this.
const TRIM_MIN: usize = 1024;
