//! Where the time of ordinary operations goes: of every few, the parts that add up to its response time. From these the
//! difference between a client's and a server's percentile can be explained, which no two histograms can.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{
    flight::{Ended, Parts},
    slowest::Split,
};

/// Of so many operations, one is looked at.
const EVERY: u32 = 16;

/// Samples of one thread and operation, 40 bytes each. When there are more, every other one goes and only half as many
/// come.
const SAMPLES_MAX: usize = 1 << 15;

/// Some operations in parts.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug)]
pub(crate) struct PartSamples {
    every: u32,
    until_next: u32,
    samples: Vec<PartSample>,
}

/// One of them, in seconds.
#[derive(BorshDeserialize, BorshSerialize, Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PartSample {
    pub(crate) lag_s: f32,
    pub(crate) elsewhere_s: f32,
    pub(crate) client_queue_s: f32,
    pub(crate) network_s: f32,
    pub(crate) server_queue_s: f32,
    pub(crate) residual_s: f32,
    pub(crate) handler_s: f32,
    pub(crate) mesh_s: f32,
    /// A part of the mesh's, not one beside it.
    pub(crate) legs_s: f32,
    /// A part of the legs'.
    pub(crate) legs_queued_s: f32,
}

impl Default for PartSamples {
    fn default() -> Self {
        Self { every: EVERY, until_next: EVERY, samples: Vec::new() }
    }
}

impl PartSamples {
    /// Whether this operation is one of them.
    pub(crate) const fn draws(&mut self) -> bool {
        self.until_next -= 1;
        if self.until_next == 0 {
            self.until_next = self.every;
            return true;
        }
        false
    }

    pub(crate) fn add(&mut self, ended: &Ended, parts: &Parts) {
        if self.samples.capacity() == 0 {
            self.samples.reserve_exact(SAMPLES_MAX);
        }
        if self.samples.len() == SAMPLES_MAX {
            self.thin();
        }
        let split = Split::of(ended, parts);
        let leg = parts.leg.unwrap_or_default().min(split.mesh);
        self.samples.push(PartSample {
            lag_s: split.lag.as_secs_f32(),
            elsewhere_s: split.elsewhere.as_secs_f32(),
            client_queue_s: split.client_queue.as_secs_f32(),
            network_s: split.network.as_secs_f32(),
            server_queue_s: split.server_queue.as_secs_f32(),
            residual_s: split.residual.as_secs_f32(),
            handler_s: split.handler.as_secs_f32(),
            mesh_s: split.mesh.as_secs_f32(),
            legs_s: leg.as_secs_f32(),
            legs_queued_s: parts.leg_queued.unwrap_or_default().min(leg).as_secs_f32(),
        });
    }

    #[cfg(test)]
    pub(crate) fn push(&mut self, sample: PartSample) {
        self.samples.push(sample);
    }

    fn thin(&mut self) {
        let mut odd = false;
        self.samples.retain(|_| {
            odd = !odd;
            odd
        });
        self.every *= 2;
    }

    /// Adds another thread's. Both are thinned alike first, so that no thread counts for more than it did.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        while self.every < other.every {
            self.thin();
        }
        while other.every < self.every {
            other.thin();
        }
        self.samples.append(&mut other.samples);
    }

    pub(crate) fn samples(&self) -> &[PartSample] {
        &self.samples
    }
}

impl PartSample {
    pub(crate) fn response_s(&self) -> f64 {
        let waits = [self.lag_s, self.client_queue_s, self.server_queue_s, self.network_s, self.residual_s];
        waits.into_iter().chain([self.elsewhere_s, self.handler_s, self.mesh_s]).map(f64::from).sum()
    }
}
