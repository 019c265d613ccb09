// SPDX-License-Identifier: GPL-2.0

//! What a step costs that is done again and again.

use crate::Result;
use crate::clock::instructions;

/// Each figure is the least of so many: what disturbs (a timer tick, a cold cache of the
/// allocator) only ever adds.
pub const REPETITIONS: usize = 5;

/// The instructions of one of many steps.
pub struct Cost {
    /// With all that happens now and then: new pages for the allocator, updates, timer ticks.
    pub mean: f64,
    /// Of a step without such.
    pub median: f64,
    pub longest: f64,
}

/// The least of what `measure` finds, each part by itself.
pub fn least(mut measure: impl FnMut() -> Result<Cost>) -> Result<Cost> {
    let mut least = measure()?;
    for _ in 1..REPETITIONS {
        let cost = measure()?;
        least.mean = least.mean.min(cost.mean);
        least.median = least.median.min(cost.median);
        least.longest = least.longest.min(cost.longest);
    }
    Ok(least)
}

/// The cost of `step`, done `count` times in a row.
pub fn batch(count: usize, mut step: impl FnMut(usize) -> Result) -> Result<Cost> {
    let mut costs = Vec::with_capacity(count);
    for i in 0..count {
        let start = instructions();
        step(i)?;
        costs.push((instructions() - start) as f64);
    }
    costs.sort_by(f64::total_cmp);
    Ok(Cost {
        mean: costs.iter().sum::<f64>() / count as f64,
        median: costs[count / 2],
        longest: costs[count - 1],
    })
}

/// The cost of `action`, done once.
pub fn once(mut action: impl FnMut() -> Result) -> Result<f64> {
    Ok(least(|| batch(1, |_| action()))?.median)
}
