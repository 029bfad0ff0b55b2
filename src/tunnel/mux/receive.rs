//! The receiving half of the mux: takes messages apart and gives each frame to its stream.
//!
//! What the peer may say, and when, is decided here alone; all that breaks the protocol is a
//! [`Violation`], which closes the link.

use std::fmt;

use crate::{
    clock::Now,
    http::Astray,
    tunnel::{
        Sockets,
        control::{Disconnect, How, ProxyConnect},
        frame::{CONTROL_MAX, Flags, FrameError, Kind, Message, StreamId},
        mux::{Handle, Happened, Mux, Orphan, Side, StreamEnd, stream::Stream},
        relay::{End, Relay},
        window::{Budget, EARLY_MAX, Window},
    },
};

/// How the peer broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The message is no batch of frames.
    Frame(FrameError),
    /// A frame of this kind may not come from that side.
    Sender(Kind),
    /// A frame for a stream above the highest opened.
    Unopened(Kind, StreamId),
    /// More data than there was credit for.
    Overspent(StreamId),
    /// Data after FIN or MESSAGE_END.
    AfterEnd(StreamId),
    /// A frame that this stream's state has no place for.
    Unexpected(Kind, StreamId),
    /// What it says is not the one response that the stream waits for.
    Astray(StreamId, Astray),
    /// A payload that is not what its kind has.
    Payload(Kind),
    /// It asks and asks, and reads no answer.
    Unread,
}

impl Mux {
    /// Takes a message apart, up to an event that the role must see; `None`: it is done with.
    ///
    /// # Errors
    /// The peer has broken the protocol.
    pub fn receive(
        &mut self,
        message: &mut Message,
        sockets: &mut dyn Sockets,
        budget: &mut Budget,
        now: Now,
    ) -> Result<Option<Happened>, Violation> {
        while let Some(frame) = message.frame().map_err(Violation::Frame)? {
            let (kind, id) = (frame.kind, frame.stream);
            self.check_sender(kind)?;
            // Before the peer is known nothing is opened, nor is anything of it believed.
            if !self.welcomed && !matches!(kind, Kind::Hello | Kind::Welcome) {
                return Err(Violation::Unexpected(kind, id));
            }
            if kind != Kind::ProxyData && frame.payload.len() > CONTROL_MAX {
                return Err(Violation::Payload(kind));
            }
            if is_of_link(kind) {
                if self.outbox.len() > QUESTIONS_MAX {
                    return Err(Violation::Unread);
                }
                if id != StreamId::LINK {
                    return Err(Violation::Unexpected(kind, id));
                }
                return Ok(Some(Happened::Control(kind, frame.payload.into())));
            }
            if kind == Kind::ProxyConnect {
                match self.receive_connect(id, frame.payload, now)? {
                    Some(opened) => return Ok(Some(opened)),
                    None => continue,
                }
            }
            let Some(&index) = self.by_id.get(&id) else {
                if id == StreamId::LINK || id.0 > self.highest {
                    return Err(Violation::Unopened(kind, id));
                }
                // It was opened and is gone: its last frames and our reset have crossed.
                continue;
            };
            let handle = self.handle(index);
            let owner = self.streams[index as usize].owner;
            let happened = match kind {
                Kind::ProxyData => {
                    self.receive_data(handle, frame.flags, frame.payload, sockets, budget, now)?
                }
                Kind::ProxyCredit => {
                    let bytes = frame
                        .payload
                        .try_into()
                        .map_err(|_| Violation::Payload(kind))?;
                    self.receive_credit(handle, u32::from_be_bytes(bytes))?;
                    None
                }
                Kind::ProxyConnected => {
                    self.receive_connected(handle)?;
                    Some(Happened::Connected(owner))
                }
                Kind::ProxyUpgraded => {
                    self.receive_upgraded(handle, budget)?;
                    Some(Happened::Upgraded(owner))
                }
                Kind::ProxyDisconnect => {
                    let disconnect = serde_json::from_slice(frame.payload)
                        .map_err(|_| Violation::Payload(kind))?;
                    Some(self.receive_disconnect(handle, disconnect, budget))
                }
                Kind::Hello
                | Kind::Welcome
                | Kind::ProxyOpen
                | Kind::ProxyOpened
                | Kind::ProxyClose
                | Kind::Goaway
                | Kind::ProxyConnect => None,
            };
            if happened.is_some() {
                return Ok(happened);
            }
        }
        Ok(None)
    }

    fn check_sender(&self, kind: Kind) -> Result<(), Violation> {
        let from = match kind {
            Kind::Hello
            | Kind::ProxyOpen
            | Kind::ProxyClose
            | Kind::ProxyConnected
            | Kind::ProxyUpgraded => Side::Client,
            Kind::Welcome | Kind::ProxyOpened | Kind::ProxyConnect => Side::Server,
            Kind::ProxyData | Kind::ProxyCredit | Kind::ProxyDisconnect | Kind::Goaway => {
                return Ok(());
            }
        };
        if from == self.side {
            Err(Violation::Sender(kind))
        } else {
            Ok(())
        }
    }

    fn receive_connect(
        &mut self,
        id: StreamId,
        payload: &[u8],
        now: Now,
    ) -> Result<Option<Happened>, Violation> {
        if id.0 <= self.highest {
            return Err(Violation::Unexpected(Kind::ProxyConnect, id));
        }
        if self.closing > REFUSALS_MAX {
            return Err(Violation::Unread);
        }
        let connect: ProxyConnect =
            serde_json::from_slice(payload).map_err(|_| Violation::Payload(Kind::ProxyConnect))?;
        self.highest = id.0;
        if self.leaving {
            // Our goaway and this have crossed: the server will see that we never touched it.
            return Ok(None);
        }
        let raw = connect.request.is_none();
        let early = EARLY_MAX.min(self.window.initial);
        let window = Window::new(self.window.initial, early);
        let relay = Relay::new(None, self.peer_window, window);
        let handle = self.insert(Stream::new(id, relay, raw, now.instant));
        Ok(Some(Happened::Opened(handle, connect)))
    }

    fn receive_data(
        &mut self,
        handle: Handle,
        flags: Flags,
        payload: &[u8],
        sockets: &mut dyn Sockets,
        budget: &mut Budget,
        now: Now,
    ) -> Result<Option<Happened>, Violation> {
        let side = self.side;
        let mut limits = self.window;
        let stream = &mut self.streams[handle.index as usize];
        let (id, owner) = (stream.id, stream.owner);
        if !stream.relay.is_receiving() {
            return Err(Violation::AfterEnd(id));
        }
        let end = match (flags.has(Flags::FIN), flags.has(Flags::MESSAGE_END)) {
            (false, false) => None,
            (true, false) if stream.raw => Some(End::Fin),
            // A response is none without its final head.
            (false, true)
                if !stream.raw
                    && (side == Side::Client || stream.answered || flags.has(Flags::FINAL)) =>
            {
                Some(End::Message {
                    keep: flags.has(Flags::KEEP),
                })
            }
            _ => return Err(Violation::Unexpected(Kind::ProxyData, id)),
        };
        if flags.has(Flags::FINAL) {
            if side == Side::Client || stream.raw || stream.answered {
                return Err(Violation::Unexpected(Kind::ProxyData, id));
            }
            stream.answered = true;
            self.traffic.answers.count(stream.age(now.instant));
        }
        stream
            .follow(payload, end, budget)
            .map_err(|astray| Violation::Astray(id, astray))?;
        stream
            .relay
            .window()
            .receive(payload.len())
            .map_err(|_| Violation::Overspent(id))?;
        self.traffic.received += payload.len() as u64;
        stream.pay(payload.len(), budget, now);
        if !budget.may_promise(stream.relay.window().size()) {
            limits.max = 0;
        }
        let before = stream.relay.footprint(limits.initial);
        let delivered = stream
            .relay
            .deliver(payload, stream.key, sockets, limits, now.instant);
        if let Some(end) = end {
            stream.relay.end(end);
        }
        self.settle(handle.index, before, budget);
        if delivered.is_err() {
            return Ok(self.write_failed(handle, budget));
        }
        self.credit_if_due(handle, budget);
        if let Some(answered) = self.answered_early(handle, budget) {
            return Ok(Some(answered));
        }
        let finished = self.finish_inbound(handle, sockets, budget);
        // Whatever still waits for the socket after the end must not wait for ever.
        let waits = end.is_some()
            && self
                .stream(handle)
                .is_some_and(|stream| stream.key.is_some() && stream.relay.tail_len() > 0);
        Ok(finished.or(waits.then_some(Happened::HalfClosed(owner))))
    }

    /// The answer is here whole, its user has not taken all of it, and is not done with its request: it
    /// may not read before it has written, and nobody else wants the rest of that.
    fn answered_early(&mut self, handle: Handle, budget: &mut Budget) -> Option<Happened> {
        let initial = self.window.initial;
        if self.side == Side::Client {
            return None;
        }
        let stream = self.stream(handle)?;
        if stream.raw || stream.relay.is_sent() {
            return None;
        }
        let before = stream.relay.footprint(initial);
        let rest = stream.relay.take_rest()?;
        self.settle(handle.index, before, budget);
        let stream = self.forget(handle, budget);
        let end = StreamEnd::Answered {
            keep: false,
            request_whole: false,
        };
        Some(Happened::Orphaned(Orphan {
            owner: stream.owner,
            ended: stream.ended(end),
            rest: Some(rest),
        }))
    }

    fn receive_credit(&mut self, handle: Handle, bytes: u32) -> Result<(), Violation> {
        let stream = &mut self.streams[handle.index as usize];
        stream
            .relay
            .credit()
            .add(bytes)
            .map_err(|_| Violation::Overspent(stream.id))?;
        self.schedule(handle);
        Ok(())
    }

    fn receive_connected(&mut self, handle: Handle) -> Result<(), Violation> {
        let rest = self.peer_window.saturating_sub(EARLY_MAX);
        let stream = &mut self.streams[handle.index as usize];
        let id = stream.id;
        if std::mem::replace(&mut stream.connected, true) {
            return Err(Violation::Unexpected(Kind::ProxyConnected, id));
        }
        stream
            .relay
            .credit()
            .add(rest)
            .map_err(|_| Violation::Overspent(id))?;
        self.schedule(handle);
        Ok(())
    }

    fn receive_upgraded(&mut self, handle: Handle, budget: &mut Budget) -> Result<(), Violation> {
        let stream = &mut self.streams[handle.index as usize];
        // The client may say so once, if the user asked for it, after the request, instead of a final
        // response: whatever the user says on its connection goes to this client from then on.
        let in_place = !stream.raw && !stream.answered && stream.relay.is_sent();
        if !stream.may_upgrade || !in_place {
            return Err(Violation::Unexpected(Kind::ProxyUpgraded, stream.id));
        }
        stream.raw = true;
        stream.answered = true;
        stream.stop_following(budget);
        stream.relay.upgrade();
        self.schedule(handle);
        Ok(())
    }

    fn receive_disconnect(
        &mut self,
        handle: Handle,
        Disconnect { how, reason }: Disconnect,
        budget: &mut Budget,
    ) -> Happened {
        let initial = self.window.initial;
        let stream = &mut self.streams[handle.index as usize];
        let before = stream.relay.footprint(initial);
        // In order: what is here already is still the socket's to have.
        let rest = match how {
            How::Orderly if stream.key.is_some() => stream.relay.take_tail(),
            How::Orderly | How::Abort => None,
        };
        self.settle(handle.index, before, budget);
        let stream = self.forget(handle, budget);
        let (owner, ended) = (
            stream.owner,
            stream.ended(StreamEnd::Disconnected(how, reason)),
        );
        match rest {
            Some(_) => Happened::Orphaned(Orphan { owner, ended, rest }),
            None => Happened::Ended(owner, ended),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Frame(error) => error.fmt(f),
            Violation::Sender(kind) => write!(f, "{} from the wrong side", kind.name()),
            Violation::Unopened(kind, id) => {
                write!(f, "{} for stream {id}, which was never opened", kind.name())
            }
            Violation::Overspent(id) => write!(f, "stream {id}: data beyond its credit"),
            Violation::Astray(id, astray) => write!(f, "stream {id}: {astray}"),
            Violation::AfterEnd(id) => write!(f, "stream {id}: data after its end"),
            Violation::Unexpected(kind, id) => {
                write!(f, "stream {id}: unexpected {}", kind.name())
            }
            Violation::Unread => f.write_str("answers are not read"),
            Violation::Payload(kind) => write!(f, "{} with a malformed payload", kind.name()),
        }
    }
}

/// How many answers of ours may wait for a peer that goes on asking: twice the proxies that a client
/// may have, at a few hundred bytes each.
const QUESTIONS_MAX: usize = 2048;

/// How many refused streams may wait to be told so, for a peer that goes on opening: a burst of users
/// larger than any link reads in a turn.
const REFUSALS_MAX: usize = 16 * 1024;

/// Frames that concern the whole link.
fn is_of_link(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Hello
            | Kind::Welcome
            | Kind::ProxyOpen
            | Kind::ProxyOpened
            | Kind::ProxyClose
            | Kind::Goaway
    )
}
