//! What this client has asked its server to open, and under which names it is open.
//!
//! It knows no link: whoever holds one says what is written here, and tells of the answers. A wish is named
//! by a number that is never used again, so that a late answer is not taken for another's.

use crate::{
    config::{Exposed, Spec},
    tunnel::control::{ProxyClose, ProxyOpen, ProxyOpened},
};

/// All wishes, in the order of the configuration.
pub(super) struct Exposures {
    wishes: Vec<Wish>,
    next: u32,
}

struct Wish {
    request: u32,
    exposed: Exposed,
    /// As the server calls it, on the present link, and where it says that it listens.
    proxy_id: Option<String>,
    address: Option<String>,
}

/// What a changed configuration asks of the server.
pub(super) struct Difference {
    pub open: Vec<ProxyOpen>,
    pub close: Vec<ProxyClose>,
}

/// Whose answer it was.
pub(super) enum Answered {
    /// That of this wish.
    Wish(Spec),
    /// Nobody's any more: what was opened is to be closed.
    Nobody(Option<ProxyClose>),
}

impl Exposures {
    pub fn new(expose: &[Exposed]) -> Exposures {
        let mut exposures = Exposures {
            wishes: Vec::new(),
            next: 0,
        };
        for exposed in expose {
            exposures.add(exposed.clone());
        }
        exposures
    }

    fn add(&mut self, exposed: Exposed) -> u32 {
        let request = self.next;
        self.next = self.next.wrapping_add(1);
        self.wishes.push(Wish {
            request,
            exposed,
            proxy_id: None,
            address: None,
        });
        request
    }

    /// What was asked for, and what the server calls it and where it listens if it has opened it.
    pub fn iter(&self) -> impl Iterator<Item = (&Exposed, Option<&str>, Option<&str>)> {
        let wishes = self.wishes.iter();
        wishes.map(|wish| {
            let (name, address) = (&wish.proxy_id, &wish.address);
            (&wish.exposed, name.as_deref(), address.as_deref())
        })
    }

    /// All that is to be asked on a new link.
    pub fn ask(&mut self) -> Vec<ProxyOpen> {
        for wish in &mut self.wishes {
            (wish.proxy_id, wish.address) = (None, None);
        }
        self.wishes.iter().map(Wish::open).collect()
    }

    /// The server has answered.
    pub fn answered(&mut self, opened: &ProxyOpened) -> Answered {
        let wish = self
            .wishes
            .iter_mut()
            .find(|wish| wish.request == opened.request);
        match wish {
            Some(wish) => {
                wish.proxy_id = opened.proxy_id.clone();
                wish.address = opened.address.clone();
                Answered::Wish(wish.exposed.spec.clone())
            }
            None => Answered::Nobody(opened.proxy_id.clone().map(ProxyClose::of)),
        }
    }

    /// From now on these are the wishes. One that takes the place of another at its listener is asked for
    /// and leads it elsewhere; the rest of the old ones is closed.
    pub fn change(&mut self, expose: &[Exposed]) -> Difference {
        let mut old = std::mem::take(&mut self.wishes);
        let mut fresh = Vec::new();
        for exposed in expose {
            let same = old.iter().position(|wish| {
                wish.exposed.spec == exposed.spec && wish.exposed.options.asks_as(&exposed.options)
            });
            match same {
                Some(index) => self.wishes.push(old.remove(index)),
                None => fresh.push(exposed.clone()),
            }
        }
        let mut open = Vec::new();
        for exposed in fresh {
            // What is at its listener is led elsewhere by the server, under the name that it has.
            if let Some(index) = old.iter().position(|wish| wish.gives_way_to(&exposed)) {
                old.remove(index);
            }
            self.add(exposed);
            open.extend(self.wishes.last().map(Wish::open));
        }
        let close = old.into_iter().filter_map(|wish| wish.proxy_id);
        Difference {
            open,
            close: close.map(ProxyClose::of).collect(),
        }
    }
}

impl Wish {
    fn open(&self) -> ProxyOpen {
        ProxyOpen {
            request: self.request,
            spec: self.exposed.spec.to_string(),
            options: self.exposed.options.to_json(),
        }
    }

    /// Whether the server takes `new` for this one, asked for anew.
    fn gives_way_to(&self, new: &Exposed) -> bool {
        let (own, other) = (&self.exposed.spec, &new.spec);
        let here = own.port != 0 && (own.bind, own.port) == (other.bind, other.port);
        here && self.exposed.options.routes().clash(&new.options.routes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(specs: &[&str]) -> Vec<Exposed> {
        let parse = |spec: &&str| spec.parse().map(|spec: crate::config::Spec| spec.into());
        specs
            .iter()
            .map(parse)
            .collect::<Result<_, _>>()
            .expect("SPECs")
    }

    fn answer(exposures: &mut Exposures, request: u32, proxy_id: &str) -> Answered {
        exposures.answered(&ProxyOpened {
            request,
            proxy_id: Some(proxy_id.into()),
            address: None,
            error: None,
        })
    }

    #[test]
    fn only_what_is_new_is_asked_and_only_what_is_gone_is_closed() {
        let mut exposures = Exposures::new(&exposed(&["tcp:1:a:1", "tcp:2:a:1", "tcp:0:a:1"]));
        let asked = exposures.ask();
        assert_eq!(asked.len(), 3);
        for (open, name) in asked.iter().zip(["one", "two", "three"]) {
            let Answered::Wish(spec) = answer(&mut exposures, open.request, name) else {
                panic!("it is one of ours");
            };
            assert_eq!(spec.to_string(), open.spec);
        }
        let Difference { open, close } =
            exposures.change(&exposed(&["tcp:2:b:9", "tcp:1:a:1", "http:3:a:1"]));
        let specs: Vec<&str> = open.iter().map(|open| &*open.spec).collect();
        assert_eq!(specs, ["tcp:2:b:9", "http:3:a:1"]);
        assert!(open.iter().all(|open| open.request > 2), "new numbers");
        let names: Vec<&str> = close.iter().map(|close| &*close.proxy_id).collect();
        assert_eq!(names, ["three"], "two is led elsewhere, under its name");
        assert_eq!(exposures.ask().len(), 3);
    }

    #[test]
    fn an_answer_that_comes_too_late_is_closed_again() {
        let mut exposures = Exposures::new(&exposed(&["tcp:1:a:1"]));
        let asked = exposures.ask();
        let Difference { open, close } = exposures.change(&[]);
        assert!(open.is_empty() && close.is_empty(), "it has no name yet");
        match answer(&mut exposures, asked[0].request, "late") {
            Answered::Nobody(Some(close)) => assert_eq!(close.proxy_id, "late"),
            _ => panic!("nobody wants it"),
        }
    }
}
