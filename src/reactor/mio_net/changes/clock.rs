//! The wall clock, when it is set, and when the machine wakes: by a timer that is never due, but ends when the
//! clock jumps (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use mio::{Interest, Registry, unix::SourceFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::reactor::mio_net::CLOCK;

/// A descriptor that is ready when the clock jumps.
pub(super) fn watch(registry: &Registry) -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
    let [never, once] = [i64::MAX, 0].map(|tv_sec| Timespec { tv_sec, tv_nsec: 0 });
    timerfd_settime(
        &timer,
        TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET,
        &Itimerspec {
            it_interval: once,
            it_value: never,
        },
    )?;
    registry.register(&mut SourceFd(&timer.as_raw_fd()), CLOCK, Interest::READABLE)?;
    Ok(timer)
}
