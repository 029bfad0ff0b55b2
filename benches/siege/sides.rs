//! What server and client cost over a phase.

use std::time::{Duration, Instant};

use crate::{common::Process, ground::Stage, machine};

/// How often they are looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Both, over a phase.
pub struct Watch<'a> {
    sides: [Side<'a>; 2],
    start: Instant,
}

struct Side<'a> {
    process: &'a Process,
    cpu: Duration,
    waited: Duration,
    descriptors: usize,
}

/// What one of them has used.
#[derive(Clone, Copy)]
pub struct Cost {
    /// The most memory that was resident at a time.
    pub resident_mib: f64,
    /// Of one core.
    pub cpu_percent: f64,
    /// How long it has waited for one, of the same time: what is the machine's, and not its own.
    pub waited_percent: f64,
    /// The most that were open when it was looked at.
    pub descriptors: usize,
}

impl<'a> Watch<'a> {
    /// Begins now.
    pub fn begin(stage: &'a Stage) -> Watch<'a> {
        let sides: [&Process; 2] = [&stage.tunnel.server, &stage.tunnel.client];
        let sides = sides.map(|process| {
            process.forget_peak();
            Side {
                process,
                cpu: machine::cpu(process.pid()),
                waited: machine::waited(process.pid()),
                descriptors: 0,
            }
        });
        Watch {
            sides,
            start: Instant::now(),
        }
    }

    /// Looks at what would not be known afterwards.
    pub fn look(&mut self) {
        for side in &mut self.sides {
            side.descriptors = side.descriptors.max(side.process.descriptors());
        }
    }

    /// What the server and the client have cost so far.
    pub fn end(self) -> [Cost; 2] {
        let took = self.start.elapsed();
        self.sides.map(|side| {
            let cpu = machine::cpu(side.process.pid()).saturating_sub(side.cpu);
            let waited = machine::waited(side.process.pid()).saturating_sub(side.waited);
            Cost {
                resident_mib: side.process.resident_bytes("VmHWM") as f64 / f64::from(1 << 20),
                cpu_percent: 100.0 * cpu.div_duration_f64(took),
                waited_percent: 100.0 * waited.div_duration_f64(took),
                descriptors: side.descriptors,
            }
        })
    }
}
