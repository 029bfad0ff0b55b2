//! Whose heap it is: what each process of the simulation would hold by itself.
//!
//! The allocator of this test counts bytes for whoever is at work: a role in its turn, the world in all
//! calls of the network and outside of turns. A block is remembered as its first owner's, whoever frees it
//! or lets it grow. Counted is what was asked for, by thread: a test runs in one.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::Cell,
};

use crate::world::HOSTS;

/// Who pays for what is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payer {
    World,
    /// A process of that number.
    Host(usize),
}

/// Until this is dropped, somebody else pays.
#[must_use]
pub struct Charge {
    before: u8,
}

impl Charge {
    pub fn to(payer: Payer) -> Charge {
        Charge {
            before: PAYER.replace(payer.number()),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        PAYER.set(self.before);
    }
}

impl Payer {
    /// Bytes that are its own at present.
    pub fn bytes(self) -> usize {
        let bytes = BYTES.get()[usize::from(self.number())];
        usize::try_from(bytes).expect("nobody frees on one thread what another counts")
    }

    /// How often it has asked for memory so far, to grow a block included.
    pub fn allocations(self) -> u64 {
        ALLOCATIONS.get()[usize::from(self.number())]
    }

    fn number(self) -> u8 {
        match self {
            Payer::World => 0,
            Payer::Host(host) => host as u8 + 1,
        }
    }
}

/// Counts, in front of the system's.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static PAYER: Cell<u8> = const { Cell::new(0) };
    static BYTES: Cell<[isize; 1 + HOSTS]> = const { Cell::new([0; 1 + HOSTS]) };
    static ALLOCATIONS: Cell<[u64; 1 + HOSTS]> = const { Cell::new([0; 1 + HOSTS]) };
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether each allocation of a process is printed from now on, with where it is made.
pub fn tell_allocations(on: bool) {
    TELLING.set(on);
}

fn count(payer: u8, bytes: isize) {
    let mut counts = BYTES.get();
    counts[usize::from(payer)] += bytes;
    BYTES.set(counts);
}

fn count_allocation(payer: u8) {
    let mut counts = ALLOCATIONS.get();
    counts[usize::from(payer)] += 1;
    ALLOCATIONS.set(counts);
    if payer != Payer::World.number() && TELLING.replace(false) {
        let charge = Charge::to(Payer::World);
        eprintln!(
            "allocation of {}\n{}",
            payer - 1,
            Backtrace::force_capture()
        );
        drop(charge);
        TELLING.set(true);
    }
}

/// Room for the owner's number in front of a block, as wide as the block's alignment.
fn room_of(layout: Layout) -> usize {
    layout.align().max(1)
}

fn with_room(layout: Layout) -> Layout {
    let size = layout.size() + room_of(layout);
    Layout::from_size_align(size, layout.align()).expect("no block of a test is that large")
}

// SAFETY: every block is one of the system's, moved up by `room_of` its layout, which is a multiple of
// its alignment; the byte in front of it lies within the system's block.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = unsafe { System.alloc(with_room(layout)) };
        if block.is_null() {
            return block;
        }
        let payer = PAYER.get();
        count(payer, layout.size() as isize);
        count_allocation(payer);
        unsafe {
            let block = block.add(room_of(layout));
            block.sub(1).write(payer);
            block
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe {
            count(block.sub(1).read(), -(layout.size() as isize));
            System.dealloc(block.sub(room_of(layout)), with_room(layout));
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let room = room_of(layout);
        unsafe {
            count_allocation(PAYER.get());
            let payer = block.sub(1).read();
            let block = System.realloc(block.sub(room), with_room(layout), size + room);
            if block.is_null() {
                return block;
            }
            count(payer, size as isize - layout.size() as isize);
            block.add(room)
        }
    }
}
