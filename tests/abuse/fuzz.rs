// SPDX-License-Identifier: GPL-2.0

//! Random calls on the file, each compared with a model of the contract.
//!
//! The seed determines all calls: a seed that has found a bug finds it again.

mod memory;
mod model;
mod open_file;
mod text;

use std::time::Instant;

use fastrand::Rng;

use model::Model;
use open_file::OpenFile;
use support::module::Module;

/// Calls between a load of the module and its unload.
const CALLS_OF_AN_EPOCH: u64 = 50_000;

/// Files that are open at the same time.
const SLOTS: usize = 12;

/// Counts the system calls on the file.
#[derive(Default)]
pub struct Counter(u64);

impl Counter {
    pub fn call(&mut self) {
        self.0 += 1;
    }
}

pub fn run(calls: u64, seed: u64) {
    println!("fuzz: {calls} calls with seed {seed}");
    let started = Instant::now();
    let mut counter = Counter::default();
    let mut epoch = 0;
    while counter.0 < calls {
        run_epoch(&mut Rng::with_seed(seed.wrapping_add(epoch)), &mut counter);
        epoch += 1;
        if epoch % 10 == 0 {
            let seconds = started.elapsed().as_secs().max(1);
            println!("  {} calls, {} a second", counter.0, counter.0 / seconds);
        }
    }
    println!(
        "fuzz: {} calls in {epoch} loads of the module, all as the contract says",
        counter.0
    );
}

fn run_epoch(rng: &mut Rng, counter: &mut Counter) {
    let updates = rng.bool();
    let _module = Module::with_interval(if updates { 10 } else { 3_600_000 });
    let mut model = Model::new(rng, updates);
    let mut slots: Vec<Option<OpenFile>> = (0..SLOTS).map(|_| None).collect();

    let end = counter.0 + CALLS_OF_AN_EPOCH;
    while counter.0 < end {
        let slot = &mut slots[rng.usize(..SLOTS)];
        match (rng.u32(..1000), slot.as_mut()) {
            (0, _) => model.end_one(rng),
            (1, _) => model.start_one(rng),
            (2..10, _) => model.check(counter),
            (10..30, _) => model.read_exits(rng, counter),
            (_, None) => *slot = OpenFile::open(rng, counter),
            (30..50, Some(_)) => *slot = None,
            (50..550, Some(file)) => file.write(rng, counter, &mut model),
            (550..850, Some(file)) => file.read(rng, counter, &mut model),
            (850..980, Some(file)) => file.seek(rng, counter, &mut model),
            (_, Some(file)) => file.try_something_odd(rng, counter),
        }
    }
    model.check(counter);
}
