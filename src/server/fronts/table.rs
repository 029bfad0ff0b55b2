//! All fronts, by their slots, each with the place that its user has taken.
//!
//! A front comes and goes through here alone, so that its place is given back when it goes, however that
//! comes about. A connection that its front leaves before it is closed has its place until it is: who stays to
//! send on after the last answer has a descriptor as everybody has.

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
    server::admission::{Admission, Full, Place},
    tunnel::ids::ProxyId,
};

/// The fronts, and who may have one.
pub(in crate::server) struct Fronts {
    slab: Slab<Front>,
    /// Places of connections that are left, and not closed yet.
    left: Slab<Place>,
    pub admission: Admission,
}

impl Fronts {
    pub fn new(limits: &ServerLimits, now: Instant) -> Fronts {
        Fronts {
            slab: Slab::new(),
            left: Slab::new(),
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

    /// Lets a user go, whose socket is the caller's to close at once.
    pub fn remove(&mut self, front: usize) -> Key {
        let Front { key, place, .. } = self.slab.remove(front);
        self.admission.release(place);
        key
    }

    /// Lets a user go, whose socket is the caller's to leave; its place is to be given back when that is
    /// [closed](Fronts::closed).
    pub fn leave(&mut self, front: usize) -> (Key, u32) {
        let Front { key, place, .. } = self.slab.remove(front);
        (key, self.left.insert(place) as u32)
    }

    /// A connection that was left is closed.
    pub fn closed(&mut self, left: u32) {
        self.admission.release(self.left.remove(left as usize));
    }

    /// Lets all go; their sockets.
    pub fn remove_all(&mut self) -> Vec<Key> {
        let Fronts {
            slab, admission, ..
        } = self;
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

    /// How many connections users have, those that are left and not closed yet among them.
    pub fn connections(&self) -> usize {
        self.slab.len() + self.left.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Gives a burst's memory back when it is over.
    pub fn trim(&mut self) {
        if self.slab.is_empty() && self.slab.capacity() > TRIM_MIN {
            self.slab = Slab::new();
        }
        if self.left.is_empty() && self.left.capacity() > TRIM_MIN {
            self.left = Slab::new();
        }
    }

    /// Panics where the invariants do not hold.
    pub fn check_invariants(&self) {
        let of_fronts = self.slab.iter().map(|(_, front)| &front.place);
        let left = self.left.iter().map(|(_, place)| place);
        self.admission.check_invariants(of_fronts.chain(left));
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
